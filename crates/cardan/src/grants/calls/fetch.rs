//! `http_fetch`.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Arguments, Function, Outcome, Situation, document, put_bytes};
use crate::grants::http::{self, HttpExchange, HttpRefusal};
use crate::grants::{Authority, Refusal};

/// What `http_fetch` takes, unless it is the URL alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    url: String,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    body_base64: Option<String>,
}

impl Authority {
    pub(super) async fn http_fetch(
        &self,
        function: &Function,
        mut args: Arguments,
        situation: Situation,
    ) -> Result<Outcome, Refusal> {
        let text = args.text(function, 0)?;
        let request: Request = if text.trim_start().starts_with('{') {
            document(function, &text)?
        } else {
            let url = text.trim().to_owned();
            Request { url, method: None, headers: BTreeMap::new(), body: None, body_base64: None }
        };
        let body = match (request.body, request.body_base64) {
            (Some(_), Some(_)) => {
                return Err(Refusal::protocol("http_fetch: give either body or body_base64"));
            }
            (Some(text), None) => Some(text.into_bytes()),
            (None, Some(encoded)) => {
                let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
                Some(
                    decoded
                        .map_err(|error| Refusal::protocol(format!("http_fetch: body_base64: {error}")))?,
                )
            }
            (None, None) => None,
        };
        let head = http::Head { url: request.url, method: request.method, headers: request.headers };
        let malformed = |refusal: HttpRefusal| Refusal::protocol(format!("http_fetch: {refusal}"));
        let exchange = HttpExchange { timeout: situation.left, ..head.exchange(body).map_err(malformed)? };
        let Some(grant) = self.http() else { return Err(self.denied(function.name, function.needs)) };
        let failed = |kind: &str, message: &str| json!({ "error": { "kind": kind, "message": message } });
        let answer = match grant.fetch(exchange).await {
            Ok(reply) => reply_document(reply),
            Err(refusal @ HttpRefusal::NotAllowed { .. }) => {
                return Err(Refusal::denied(refusal.to_string()));
            }
            Err(HttpRefusal::Timeout) => failed("timeout", "there was no response in time"),
            Err(refusal @ HttpRefusal::TooLarge(_)) => failed("too_large", &refusal.to_string()),
            Err(refusal @ (HttpRefusal::Failed(_) | HttpRefusal::Malformed(_))) => {
                // The cause is the operator's to know: it may tell of networks that are not the guest's.
                let answer = failed("failed", "the request failed; the plugin's log says why");
                return Ok(Outcome { note: Some(format!("http_fetch: {refusal}")), ..answer.into() });
            }
        };
        Ok(answer.into())
    }
}

fn reply_document(reply: http::HttpReply) -> Value {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in reply.headers {
        let value = String::from_utf8_lossy(&value).into_owned();
        // Fields of one name are a list (RFC 9110, section 5.3), but for the one whose values have commas.
        let separator = if name == "set-cookie" { "\n" } else { ", " };
        match headers.get_mut(&name) {
            Some(values) => values.extend([separator, &value]),
            None => drop(headers.insert(name, value)),
        }
    }
    let mut document = Map::new();
    document.insert("status".to_owned(), reply.status.into());
    document.insert("headers".to_owned(), json!(headers));
    put_bytes(&mut document, "body", reply.body);
    Value::Object(document)
}
