//! The hooks that visits ask at.

use cardan_api::Hook as _;
use cardan_api::http::{HttpComplete, HttpRequest, HttpResponse};

/// The chain of one hook, among those of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Seat {
    /// Of [`HttpRequest`].
    Request,
    /// Of [`HttpResponse`].
    Response,
    /// Of [`HttpComplete`].
    Complete,
}

impl Seat {
    /// Every one, in the order in which a request meets them.
    pub(crate) const ALL: [Self; 3] = [Self::Request, Self::Response, Self::Complete];

    /// The hook's name.
    pub fn hook(self) -> &'static str {
        match self {
            Self::Request => HttpRequest::NAME,
            Self::Response => HttpResponse::NAME,
            Self::Complete => HttpComplete::NAME,
        }
    }

    /// The hooks at which a visit may still ask after this one.
    pub(crate) fn later(self) -> &'static [Self] {
        match self {
            Self::Request => &[Self::Response, Self::Complete],
            Self::Response => &[Self::Complete],
            Self::Complete => &[],
        }
    }
}
