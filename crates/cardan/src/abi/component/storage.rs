//! SMG's storage hooks (`smg:storage`).

use cardan_api::Verdict;
use cardan_api::storage::{
    ExtraColumn, StorageAfter, StorageBefore, StorageEdits, StorageEvent, StorageOperation, StorageRefusal,
    StoredEvent,
};
use wasmtime::component::{ComponentType, Lift, Lower};

use super::call::{Ask, Entry, Failure, Guest};
use super::recognise::Interface;
use crate::dialect::Circumstances;

pub(super) const BEFORE: Entry = Entry::new::<
    (Operation, Vec<ContextEntry<'static>>, &'static str),
    (BeforeResult,),
>(Interface::SmgBefore, "before");
pub(super) const AFTER: Entry = Entry::new::<
    (Operation, Vec<ContextEntry<'static>>, &'static str, &'static str, Vec<ColumnShown<'static>>),
    (Vec<Column>,),
>(Interface::SmgAfter, "after");

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub(super) enum Operation {
    #[component(name = "create-conversation")]
    CreateConversation,
    #[component(name = "get-conversation")]
    GetConversation,
    #[component(name = "update-conversation")]
    UpdateConversation,
    #[component(name = "delete-conversation")]
    DeleteConversation,
    #[component(name = "create-item")]
    CreateItem,
    #[component(name = "link-item")]
    LinkItem,
    #[component(name = "link-items")]
    LinkItems,
    #[component(name = "list-items")]
    ListItems,
    #[component(name = "get-item")]
    GetItem,
    #[component(name = "is-item-linked")]
    IsItemLinked,
    #[component(name = "delete-item")]
    DeleteItem,
    #[component(name = "store-response")]
    StoreResponse,
    #[component(name = "get-response")]
    GetResponse,
    #[component(name = "delete-response")]
    DeleteResponse,
    #[component(name = "get-response-chain")]
    GetResponseChain,
    #[component(name = "list-identifier-responses")]
    ListIdentifierResponses,
    #[component(name = "delete-identifier-responses")]
    DeleteIdentifierResponses,
}

impl From<StorageOperation> for Operation {
    fn from(operation: StorageOperation) -> Self {
        use StorageOperation as Of;
        match operation {
            Of::CreateConversation => Self::CreateConversation,
            Of::GetConversation => Self::GetConversation,
            Of::UpdateConversation => Self::UpdateConversation,
            Of::DeleteConversation => Self::DeleteConversation,
            Of::CreateItem => Self::CreateItem,
            Of::LinkItem => Self::LinkItem,
            Of::LinkItems => Self::LinkItems,
            Of::ListItems => Self::ListItems,
            Of::GetItem => Self::GetItem,
            Of::IsItemLinked => Self::IsItemLinked,
            Of::DeleteItem => Self::DeleteItem,
            Of::StoreResponse => Self::StoreResponse,
            Of::GetResponse => Self::GetResponse,
            Of::DeleteResponse => Self::DeleteResponse,
            Of::GetResponseChain => Self::GetResponseChain,
            Of::ListIdentifierResponses => Self::ListIdentifierResponses,
            Of::DeleteIdentifierResponses => Self::DeleteIdentifierResponses,
        }
    }
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct ContextEntry<'a> {
    key: &'a str,
    value: &'a str,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct ColumnShown<'a> {
    name: &'a str,
    value: &'a str,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct Column {
    name: String,
    value: String,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(super) enum BeforeResult {
    #[component(name = "do-continue")]
    DoContinue(Vec<Column>),
    #[component(name = "reject")]
    Reject(String),
}

fn context(event: &StorageEvent) -> Vec<ContextEntry<'_>> {
    event.context.iter().map(|(key, value)| ContextEntry { key, value }).collect()
}

fn edits(columns: Vec<Column>) -> StorageEdits {
    let columns = columns.into_iter().map(|Column { name, value }| ExtraColumn { name, value });
    StorageEdits { columns: columns.collect() }
}

impl Ask for StorageBefore {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::SmgBefore)
    }

    async fn ask(
        guest: &mut Guest,
        event: &StorageEvent,
        _about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let params = (Operation::from(event.operation), context(event), &*event.payload);
        Ok(match guest.call(BEFORE, params).await? {
            BeforeResult::DoContinue(columns) => Verdict::edit(edits(columns)),
            BeforeResult::Reject(message) => Verdict::stop(StorageRefusal { message }),
        })
    }
}

impl Ask for StorageAfter {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::SmgAfter)
    }

    async fn ask(
        guest: &mut Guest,
        event: &StoredEvent,
        _about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let done = &event.done;
        let shown =
            done.columns.iter().map(|column| ColumnShown { name: &column.name, value: &column.value });
        let params =
            (Operation::from(done.operation), context(done), &*done.payload, &*event.result, shown.collect());
        let columns: Vec<Column> = guest.call::<(_, _, _, _, Vec<ColumnShown<'_>>), _>(AFTER, params).await?;
        Ok(Verdict::edit(edits(columns)))
    }
}
