//! What clients are told when an exchange does not go as they asked.
//!
//! Every text a client can see is written here by hand, in the error shape of OpenAI's API, which
//! clients of LLM gateways already read. (What is wrong with a client's own JSON is told in the parser's
//! words.) A cause inside the house (an address, a guest's message, an
//! I/O error) goes to the log under the request id that the response carries.
//!
//! Bytes that are no HTTP request, or a head beyond its limits, never become an exchange: hyper answers
//! them itself, with 400, 414 or 431, an empty body and the end of the connection, and has no way to be told
//! otherwise (as of 1.12: `Server::on_error` in its `proto/h1/role.rs`). On HTTP/2 they end the stream or the
//! connection.
//!
//! A plugin that could not be asked, where its binding says that this stops the exchange, is 503 with the
//! fault as code, at every hook: the request is not to blame, and trying again may help.

use std::sync::Arc;

use bytes::Bytes;
use cardan_api::http::Refusal;
use cardan_api::{Fault, Phase};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use crate::budget::Exhausted;
use crate::ijson::NotIJson;
use crate::media_type::BadType;
use crate::path::BadPath;

/// Why an exchange ended without the answer that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// No `Host`, several, or one that contradicts the request line.
    BadHost,
    BadPath(BadPath),
    /// `CONNECT`: this is no forward proxy.
    MethodUnsupported,
    NoRoute,
    /// The limit in bytes, where it is known.
    BodyTooLarge(Option<u64>),
    /// A plugin, or the built-in service, has to read a compressed body.
    BodyEncoded,
    /// A plugin has to read a body that two programs could read in two ways.
    BodyAmbiguous(NotIJson),
    /// A plugin has to read a body that two programs could take for two kinds of text.
    TypeAmbiguous(BadType),
    /// Everything together that is held takes up what it may.
    Overloaded,
    BodyTimeout,
    BodyBroken,
    /// No copy of the upstream accepted a connection.
    Unreachable,
    /// The upstream kept us waiting.
    UpstreamTimeout,
    /// The upstream broke off, or sent what is not HTTP.
    UpstreamBroken,
    /// A plugin said no.
    Refused {
        phase: Phase,
        refusal: Refusal,
    },
    /// A plugin could not be asked, and its binding says that this stops the exchange.
    Faulted {
        plugin: Arc<str>,
        fault: Fault,
    },
    /// Plugins succeeded, but what they made of the message cannot be sent.
    Unsendable,
}

impl From<Exhausted> for Problem {
    fn from(Exhausted: Exhausted) -> Self {
        Self::Overloaded
    }
}

/// An error document and its status.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    pub(crate) document: Bytes,
    /// For trouble that passes by itself.
    pub(crate) retry_after: Option<HeaderValue>,
}

impl Problem {
    /// A word for logs.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::BadHost => "host_invalid",
            Self::BadPath(BadPath::Malformed) => "path_invalid",
            Self::BadPath(BadPath::Ambiguous) => "path_ambiguous",
            Self::MethodUnsupported => "method_unsupported",
            Self::NoRoute => "route_not_found",
            Self::BodyTooLarge(_) => "request_too_large",
            Self::BodyEncoded => "content_encoding_unsupported",
            Self::BodyAmbiguous(_) => "json_invalid",
            Self::TypeAmbiguous(_) => "content_type_invalid",
            Self::Overloaded => "overloaded",
            Self::BodyTimeout => "request_timeout",
            Self::BodyBroken => "request_incomplete",
            Self::Unreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamBroken => "upstream_broken",
            Self::Refused { refusal, .. } => &refusal.kind,
            Self::Faulted { fault, .. } => fault.label(),
            Self::Unsendable => Fault::Protocol.label(),
        }
    }

    pub(crate) fn tell(&self) -> Told {
        let (status, kind, message) = match self {
            Self::BadHost => (400, INVALID, "the request must name one host".to_owned()),
            Self::BadPath(BadPath::Malformed) => (
                400,
                INVALID,
                "the request path is not valid; it may not contain `.` or `..` segments".to_owned(),
            ),
            Self::BadPath(BadPath::Ambiguous) => (
                400,
                INVALID,
                "the request path may not contain empty segments, backslashes, semicolons, encoded slashes or \
                 anything percent-encoded twice"
                    .to_owned(),
            ),
            Self::MethodUnsupported => (405, INVALID, "this method is not supported here".to_owned()),
            Self::NoRoute => {
                (404, INVALID, "nothing is served here; check the method, the host and the path".to_owned())
            }
            Self::BodyTooLarge(Some(max)) => (
                413,
                INVALID,
                format!("the request body is larger than {max} bytes, the limit of this gateway"),
            ),
            Self::BodyTooLarge(None) => {
                (413, INVALID, "the request body is larger than the limit of this gateway".to_owned())
            }
            Self::BodyEncoded => (
                415,
                INVALID,
                "this request body has to be read here; send it without content-encoding".to_owned(),
            ),
            Self::BodyAmbiguous(why) => (
                400,
                INVALID,
                format!(
                    "the request body must be one JSON document in UTF-8 in which no object has a name twice: {why}"
                ),
            ),
            Self::TypeAmbiguous(why) => (
                400,
                INVALID,
                format!(
                    "the content-type must be one media type, in ASCII, whose charset, if it has one, is utf-8: {why}"
                ),
            ),
            Self::Overloaded => (
                503,
                SERVER,
                "too many messages are being held here at this moment; try again later".to_owned(),
            ),
            Self::BodyTimeout => (408, INVALID, "the request body did not arrive in time".to_owned()),
            Self::BodyBroken => (400, INVALID, "the request body could not be read to its end".to_owned()),
            Self::Unreachable => {
                (502, UPSTREAM, "the upstream service cannot be reached; try again later".to_owned())
            }
            Self::UpstreamTimeout => {
                (504, UPSTREAM, "the upstream service did not answer in time; try again later".to_owned())
            }
            Self::UpstreamBroken => {
                (502, UPSTREAM, "the upstream service broke off its answer; try again later".to_owned())
            }
            Self::Refused { phase, refusal } => {
                let status = refusal.status.filter(|status| (400..600).contains(status));
                let status = status.unwrap_or_else(|| phase.refusal_status());
                (status, refusal.kind.as_str(), refusal.message.clone())
            }
            Self::Faulted { plugin, .. } => (
                503,
                PLUGIN,
                format!(
                    "the plugin `{plugin}`, which every such request has to pass, cannot answer; try again later"
                ),
            ),
            Self::Unsendable => {
                (503, PLUGIN, "what the plugins made of this message cannot be sent".to_owned())
            }
        };
        let document = json!({
            "error": { "message": message, "type": kind, "param": null, "code": self.code() }
        });
        Told {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN),
            document: document.to_string().into(),
            retry_after: (*self == Self::Overloaded).then_some(HeaderValue::from_static("1")),
        }
    }
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";
const UPSTREAM: &str = "upstream_error";
const PLUGIN: &str = "plugin_unavailable";

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(problem: Problem, status: u16, document: &str) {
        let told = problem.tell();
        assert_eq!(told.status, status);
        assert_eq!(told.document, document);
    }

    fn refused(phase: Phase, status: Option<u16>) -> Problem {
        let refusal = Refusal { status, kind: "pii".into(), message: "no \"names\"".into() };
        Problem::Refused { phase, refusal }
    }

    #[test]
    fn errors_have_openais_shape() {
        let pii = r#"{"error":{"message":"no \"names\"","type":"pii","param":null,"code":"pii"}}"#;
        check(refused(Phase::PreFlight, None), 403, pii);
        check(refused(Phase::Routing, None), 503, pii);
        check(refused(Phase::PreFlight, Some(429)), 429, pii);
        check(refused(Phase::PreFlight, Some(200)), 403, pii);
        check(refused(Phase::PreFlight, Some(1000)), 403, pii);
        check(
            Problem::Faulted { plugin: "guard".into(), fault: Fault::Deadline },
            503,
            r#"{"error":{"message":"the plugin `guard`, which every such request has to pass, cannot answer; try again later","type":"plugin_unavailable","param":null,"code":"deadline"}}"#,
        );
        check(
            Problem::BodyTooLarge(Some(7)),
            413,
            r#"{"error":{"message":"the request body is larger than 7 bytes, the limit of this gateway","type":"invalid_request_error","param":null,"code":"request_too_large"}}"#,
        );
    }
}
