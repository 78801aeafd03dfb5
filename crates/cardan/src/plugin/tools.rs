//! What a plugin can do for agents.

use cardan_api::tool::{Tool, ToolList, ToolListEvent};
use cardan_api::{Flow, Hook as _};
use serde_json::{Map, Value};

use super::{Held, Plugin, Question};
use crate::dialect::Circumstances;
use crate::{Error, runtime};

impl Plugin {
    /// The tools that it has, which it is asked for at `tool.list`; none where it has no answer to that. Blocks.
    ///
    /// # Errors
    ///
    /// When it is asked and has no list.
    pub fn tools(&self) -> Result<Vec<Tool>, Error> {
        runtime::block_on(self.tools_async())
    }

    /// As [`Plugin::tools`].
    ///
    /// # Errors
    ///
    /// As [`Plugin::tools`].
    pub async fn tools_async(&self) -> Result<Vec<Tool>, Error> {
        if !self.inspection().hooks.contains(&ToolList::NAME) {
            return Ok(Vec::new());
        }
        let config = Value::Object(Map::new());
        let about = Circumstances::of_life(&config);
        let question = Question::<ToolList> { event: &ToolListEvent, about, entry: None, deadline: None };
        match self.ask(&mut Held::default(), question).await?.flow {
            Flow::Stop(tools) => Ok(tools),
            Flow::Continue => Ok(Vec::new()),
        }
    }
}
