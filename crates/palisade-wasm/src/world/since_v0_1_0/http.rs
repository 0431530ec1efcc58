//! `palisade:plugin/http`: the request `http.fetch`.

use data_encoding::BASE64;
use palisade_model::{ErrorCode, Failure};
use serde::Deserialize;

use super::{
    super::json::{self, Object},
    bindings::palisade::plugin::http::{self, Request, Response},
    imports::{Given, too_many},
};
use crate::state::State;

/// Most header fields of a request.
const MAX_HEADERS: usize = 100;

#[derive(Deserialize)]
struct Fetched {
    status: u16,
    url: String,
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    body_base64: Option<String>,
    redirects: u32,
}

impl http::Host for State {
    async fn fetch(&mut self, request: Request) -> Given<Response> {
        if request.headers.len() > MAX_HEADERS {
            return Ok(Err(too_many("header fields", MAX_HEADERS).into()));
        }
        let headers = json::list(request.headers.iter().map(|(name, value)| {
            let mut pair = vec![b'['];
            json::write_text(&mut pair, name);
            pair.push(b',');
            json::write_text(&mut pair, value);
            pair.push(b']');
            pair
        }));
        let mut params = Object::new()
            .text("url", &request.url)
            .maybe_text("method", request.method.as_deref())
            .maybe_number("timeout_ms", request.timeout_ms.map(u64::from));
        if !request.headers.is_empty() {
            params = params.checked("headers", &headers);
        }
        if !request.follow_redirects {
            params = params.flag("redirect", false);
        }
        if let Some(body) = request.body {
            params = match std::str::from_utf8(&body) {
                Ok(text) => params.text("body", text),
                Err(_) => params.text("body_base64", &BASE64.encode(&body)),
            };
        }
        self.ask("http.fetch", Ok(params), |answer| {
            let fetched: Fetched = json::read("http.fetch", &answer)?;
            let body = match (fetched.body, fetched.body_base64) {
                (Some(text), _) => text.into_bytes(),
                (None, Some(base64)) => BASE64.decode(base64.as_bytes()).map_err(|e| {
                    Failure::new(ErrorCode::Internal, format!("the body of an answer: {e}"))
                })?,
                (None, None) => Vec::new(),
            };
            let Fetched { status, url, headers, redirects, .. } = fetched;
            Ok(Response { status, url, headers, body, redirects })
        })
        .await
    }
}
