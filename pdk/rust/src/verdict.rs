use bytes::Bytes;
use cardan_api::http::{
    HeaderEdit, Headers, HttpAnswer, HttpRequest, HttpResponse, Refusal, RequestEdits, Response,
    ResponseEdits,
};
use cardan_api::{Hook, Verdict};
use serde_json::Value;

/// Stops the exchange: the host answers with an error in the caller's own API's shape. The status is 400 to 599.
pub fn refuse<H: Hook<Answer = HttpAnswer>>(status: u16, kind: &str, message: &str) -> Verdict<H> {
    Verdict::stop(HttpAnswer::Refuse(Refusal {
        status: Some(status),
        kind: kind.to_owned(),
        message: message.to_owned(),
    }))
}

/// Stops the exchange: the client gets this response. The status is 200 to 599.
pub fn respond<H: Hook<Answer = HttpAnswer>>(
    status: u16,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Verdict<H> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let headers = Headers(headers.collect());
    Verdict::stop(HttpAnswer::Respond(Response { status, headers, body: body.into() }))
}

/// Verdicts that are put together one change at a time. With an answer, changes have no effect.
pub trait Edited: Sized {
    /// Replaces every header field of this name.
    #[must_use]
    fn with_header(self, name: &str, value: &str) -> Self {
        self.with_header_edit(HeaderEdit::Set(name.to_owned(), value.to_owned()))
    }

    /// Removes every header field of this name.
    #[must_use]
    fn without_header(self, name: &str) -> Self {
        self.with_header_edit(HeaderEdit::Remove(name.to_owned()))
    }

    /// One change to header fields.
    #[must_use]
    fn with_header_edit(self, edit: HeaderEdit) -> Self;

    /// A new body. Needs a binding that is shown the old one.
    #[must_use]
    fn with_body(self, body: impl Into<Bytes>) -> Self;

    /// Sets a fact about the visit, which plugins that are asked later see.
    #[must_use]
    fn with_attribute(self, name: &str, value: impl Into<Value>) -> Self;
}

trait HttpEdits {
    fn headers(&mut self) -> &mut Vec<HeaderEdit>;
    fn body(&mut self) -> &mut Option<Bytes>;
}

impl HttpEdits for RequestEdits {
    fn headers(&mut self) -> &mut Vec<HeaderEdit> {
        &mut self.headers
    }

    fn body(&mut self) -> &mut Option<Bytes> {
        &mut self.body
    }
}

impl HttpEdits for ResponseEdits {
    fn headers(&mut self) -> &mut Vec<HeaderEdit> {
        &mut self.headers
    }

    fn body(&mut self) -> &mut Option<Bytes> {
        &mut self.body
    }
}

macro_rules! edited {
    ($($hook:ty),*) => {$(
        impl Edited for Verdict<$hook> {
            fn with_header_edit(mut self, edit: HeaderEdit) -> Self {
                self.edits.headers().push(edit);
                self
            }

            fn with_body(mut self, body: impl Into<Bytes>) -> Self {
                *self.edits.body() = Some(body.into());
                self
            }

            fn with_attribute(mut self, name: &str, value: impl Into<Value>) -> Self {
                self.attributes.insert(name.to_owned(), value.into());
                self
            }
        }
    )*};
}

edited!(HttpRequest, HttpResponse);
