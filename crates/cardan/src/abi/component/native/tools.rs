//! `tools`.

use bytes::Bytes;
use cardan_api::Verdict;
use cardan_api::tool::{Tool, ToolAnswer, ToolCall, ToolCallEvent, ToolList, ToolListEvent, ToolOutput};
use wasmtime::component::{ComponentType, Lift, Resource};

use super::{Ask, Circumstances, Entry, Failure, Guest, Interface, Visit, enter, said};
use crate::dialect::check_tools;

const LIST: Entry =
    Entry::new::<(Resource<Visit>,), (Result<Vec<Listed>, String>,)>(Interface::Tools, "list-tools");
const CALL: Entry = Entry::new::<(Resource<Visit>, &'static str, &'static str), (Result<Outcome, String>,)>(
    Interface::Tools,
    "call-tool",
);

pub(super) const ENTRIES: [Entry; 2] = [LIST, CALL];

#[derive(ComponentType, Lift)]
#[component(record)]
struct Listed {
    name: String,
    description: String,
    parameters: String,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum Outcome {
    #[component(name = "unknown")]
    Unknown,
    #[component(name = "json")]
    Json(String),
    #[component(name = "text")]
    Text(String),
    #[component(name = "failed")]
    Failed(String),
}

impl Ask for ToolList {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::Tools)
    }

    async fn ask(
        guest: &mut Guest,
        _event: &ToolListEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let visit = enter(guest, about);
        let listed: Result<Vec<Listed>, String> = guest.call(LIST, (visit,)).await?;
        let tool = |Listed { name, description, parameters }: Listed| {
            let parameters = serde_json::from_str(&parameters).map_err(|why| {
                Failure::Protocol(format!("the parameters of the tool {name:?} are no JSON: {why}"))
            })?;
            Ok(Tool { name, description, parameters })
        };
        let tools: Result<Vec<Tool>, Failure> = said(listed)?.into_iter().map(tool).collect();
        let tools = tools?;
        check_tools(&tools)?;
        Ok(Verdict::stop(tools))
    }
}

impl Ask for ToolCall {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::Tools)
    }

    async fn ask(
        guest: &mut Guest,
        event: &ToolCallEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let arguments = std::str::from_utf8(&event.arguments)
            .map_err(|_| Failure::Protocol("cannot be shown arguments that are not UTF-8".to_owned()))?;
        let visit = enter(guest, about);
        let outcome: Result<Outcome, String> = guest.call(CALL, (visit, &*event.tool, arguments)).await?;
        Ok(match said(outcome)? {
            Outcome::Unknown => Verdict::pass(),
            Outcome::Json(json) => {
                serde_json::from_str::<serde::de::IgnoredAny>(&json)
                    .map_err(|why| Failure::Protocol(format!("the tool returned no JSON: {why}")))?;
                Verdict::stop(ToolAnswer::Done(ToolOutput::Json(Bytes::from(json))))
            }
            Outcome::Text(text) => Verdict::stop(ToolAnswer::Done(ToolOutput::Text(text))),
            Outcome::Failed(why) => Verdict::stop(ToolAnswer::Failed(why)),
        })
    }
}
