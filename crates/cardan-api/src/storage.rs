//! The storage hooks: an operation on what a host keeps of conversations and responses, before and after.

use std::convert::Infallible;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::FaultPolicy;
use crate::hook::Hook;

/// `storage.before`: an operation is about to be carried out.
#[derive(Debug)]
pub struct StorageBefore;

/// `storage.after`: an operation has succeeded.
#[derive(Debug)]
pub struct StorageAfter;

/// What is done to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "SMG's names, which say it all")]
pub enum StorageOperation {
    CreateConversation,
    GetConversation,
    UpdateConversation,
    DeleteConversation,
    CreateItem,
    LinkItem,
    LinkItems,
    ListItems,
    GetItem,
    IsItemLinked,
    DeleteItem,
    StoreResponse,
    GetResponse,
    DeleteResponse,
    GetResponseChain,
    ListIdentifierResponses,
    DeleteIdentifierResponses,
}

/// A column beside those that the host writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExtraColumn {
    /// Its name.
    pub name: String,
    /// Its value, as text.
    pub value: String,
}

/// What `storage.before` plugins are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageEvent {
    /// What is to be done.
    pub operation: StorageOperation,
    /// What is known of whoever asked for it, by name.
    pub context: Vec<(String, String)>,
    /// The operation's arguments, in JSON.
    pub payload: String,
    /// Columns that plugins asked before add.
    pub columns: Vec<ExtraColumn>,
}

/// What `storage.after` plugins are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// What was done, with the columns that were added.
    pub done: StorageEvent,
    /// The operation's result, in JSON.
    pub result: String,
}

/// What a storage plugin may change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageEdits {
    /// Columns, each in the place of one of the same name.
    pub columns: Vec<ExtraColumn>,
}

/// Why an operation does not happen, for whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageRefusal {
    /// The plugin's words.
    pub message: String,
}

impl StorageEdits {
    fn apply(self, columns: &mut Vec<ExtraColumn>) {
        for new in self.columns {
            match columns.iter_mut().find(|column| column.name == new.name) {
                Some(column) => *column = new,
                None => columns.push(new),
            }
        }
    }
}

impl Hook for StorageBefore {
    const NAME: &'static str = "storage.before";
    const ON_FAULT: FaultPolicy = FaultPolicy::Refuse;
    type Event = StorageEvent;
    type Answer = StorageRefusal;
    type Edits = StorageEdits;

    fn apply(event: &mut StorageEvent, edits: StorageEdits) {
        edits.apply(&mut event.columns);
    }
}

impl Hook for StorageAfter {
    const NAME: &'static str = "storage.after";
    const ON_FAULT: FaultPolicy = FaultPolicy::Skip;
    type Event = StoredEvent;
    type Answer = Infallible;
    type Edits = StorageEdits;

    fn apply(event: &mut StoredEvent, edits: StorageEdits) {
        edits.apply(&mut event.done.columns);
    }
}
