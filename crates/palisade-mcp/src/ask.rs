//! What a server may ask of its client: sampling, elicitation and roots.
//!
//! Until 2025-11-25 the server sends requests of its own; since 2026-07-28 its results carry them
//! (`inputRequests`), and the tasks extension does so in the state of a task. Clients announce what they
//! can do in `initialize`, or since 2026-07-28 with each request. All these places are known here and
//! nowhere else.

use std::borrow::Cow;

use palisade_model::{Access, Kind};

use crate::json::{Object, Unclear, string};

/// Since 2026-07-28: what the client can do, in the `_meta` of each request.
pub(crate) const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// The error with which a server of 2025-11-25 asks for elicitation by URL instead of an answer.
pub(crate) const URL_ELICITATION_REQUIRED: i64 = -32042;
/// Since 2026-07-28: the client did not announce what the request would take.
pub(crate) const MISSING_CLIENT_CAPABILITY: i64 = -32021;

/// One thing that a server asks of its client, as a right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) kind: Kind,
    pub(crate) target: Cow<'static, str>,
}

impl Need {
    pub(crate) fn access(&self) -> Access<'_> {
        Access::new(self.kind, &self.target)
    }

    /// The client's name for the feature.
    pub(crate) fn feature(&self) -> &'static str {
        match self.kind {
            Kind::McpSampling => "sampling",
            Kind::McpElicitation => "elicitation",
            _ => "roots",
        }
    }

    pub(crate) const URL: Self = Self { kind: Kind::McpElicitation, target: Cow::Borrowed("url") };
}

/// What a request of the server with this method takes; `None` where it takes nothing.
pub(crate) fn needed(method: &str, params: Option<&str>) -> Result<Option<Need>, Unclear> {
    let need = |kind, target: Cow<'static, str>| Ok(Some(Need { kind, target }));
    match method {
        "sampling/createMessage" => need(Kind::McpSampling, "createMessage".into()),
        "roots/list" => need(Kind::McpRoots, "list".into()),
        "elicitation/create" => {
            let mode = match params {
                None => None,
                Some(params) => Object::read(params, &["mode"])?.get("mode"),
            };
            match mode {
                // The specification's default.
                None => need(Kind::McpElicitation, "form".into()),
                Some(raw) => {
                    let mode = string(raw).ok_or(Unclear::Shape)?;
                    need(Kind::McpElicitation, mode.into_owned().into())
                }
            }
        }
        _ => Ok(None),
    }
}

/// What the `inputRequests` of a result, of a task or of a notification's parameters take.
pub(crate) fn input_requests(carrier: &Object<'_>) -> Result<Vec<Need>, Unclear> {
    let Some(raw) = carrier.get("inputRequests").filter(|raw| *raw != "null") else {
        return Ok(Vec::new());
    };
    let mut needs = Vec::new();
    for (_, request) in Object::read(raw, &[])?.iter() {
        let request = Object::read(request, &["method", "params"])?;
        let method = request.get("method").and_then(string).ok_or(Unclear::Shape)?;
        // Nothing else may be asked for here (2026-07-28, multi round-trip requests).
        needs.push(needed(&method, request.get("params"))?.ok_or(Unclear::Shape)?);
    }
    Ok(needs)
}

/// The client's `capabilities` without what is not allowed, the rest as it is spelled; `None` where
/// nothing has to be taken out.
pub(crate) fn stripped(
    capabilities: &str,
    may: impl Fn(Kind, &str) -> bool,
) -> Result<Option<String>, Unclear> {
    let mut text = Cow::Borrowed(capabilities);
    let (form, url) = (may(Kind::McpElicitation, "form"), may(Kind::McpElicitation, "url"));
    let allowed = [
        ("sampling", may(Kind::McpSampling, "createMessage")),
        ("elicitation", form || url),
        ("roots", may(Kind::McpRoots, "list")),
    ];
    let unwanted: Vec<&str> =
        allowed.iter().filter(|(_, allowed)| !allowed).map(|(name, _)| *name).collect();
    let counts = ["sampling", "elicitation", "roots", "tasks"];
    if let Some(less) = Object::read(&text, &counts)?.without(&unwanted) {
        text = Cow::Owned(less);
    }
    let modes: Vec<&str> = [("form", form), ("url", url)]
        .iter()
        .filter(|(_, allowed)| !allowed)
        .map(|(name, _)| *name)
        .collect();
    // 2025-11-25: what the client can do as a task stands apart.
    for (path, unwanted) in [(&["elicitation"][..], &modes), (&["tasks", "requests"], &unwanted)] {
        if let Some(less) = without_at(&text, path, unwanted)? {
            text = Cow::Owned(less);
        }
    }
    Ok(match text {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text),
    })
}

/// `text` without the members `unwanted` of the object that lies at `path`, if there is one.
fn without_at(text: &str, path: &[&str], unwanted: &[&str]) -> Result<Option<String>, Unclear> {
    let object = Object::read(text, unwanted)?;
    let Some((first, rest)) = path.split_first() else { return Ok(object.without(unwanted)) };
    match object.get(first) {
        Some(inner) if inner.starts_with('{') => {
            let less = without_at(inner, rest, unwanted)?;
            Ok(less.and_then(|less| object.with(first, &less)))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(kind: Kind, target: &'static str) -> Need {
        Need { kind, target: target.into() }
    }

    #[test]
    fn requests_of_a_server_are_rights() {
        let needed = |method, params| needed(method, params).unwrap();
        assert_eq!(
            needed("sampling/createMessage", None),
            Some(need(Kind::McpSampling, "createMessage"))
        );
        assert_eq!(needed("roots/list", Some("{}")), Some(need(Kind::McpRoots, "list")));
        assert_eq!(
            needed("elicitation/create", Some("{}")),
            Some(need(Kind::McpElicitation, "form"))
        );
        let url = Some(r#"{"mode":"url","url":"https://example.org"}"#);
        assert_eq!(needed("elicitation/create", url), Some(Need::URL));
        assert_eq!(needed("ping", None), None);
        for unclear in
            [r#"{"mode":1}"#, r#"{"Mode":"url"}"#, r#"{"mode":"form","mode":"url"}"#, "[]"]
        {
            assert!(super::needed("elicitation/create", Some(unclear)).is_err(), "{unclear}");
        }
    }

    #[test]
    fn requests_that_a_result_carries_are_found() {
        let find = |text: &str| input_requests(&Object::read(text, &[]).unwrap());
        assert_eq!(find(r#"{"content":[]}"#), Ok(vec![]));
        let both = r#"{"inputRequests":{"a":{"method":"roots/list"},"b":{"method":"elicitation/create","params":{"mode":"url"}}}}"#;
        assert_eq!(find(both), Ok(vec![need(Kind::McpRoots, "list"), Need::URL]));
        for unclear in [
            r#"{"inputRequests":[]}"#,
            r#"{"inputRequests":{"a":{}}}"#,
            r#"{"inputRequests":{"a":{"method":"something/else"}}}"#,
            r#"{"inputRequests":{"a":{"method":"roots/list","Method":"sampling/createMessage"}}}"#,
            r#"{"inputRequests":{"a":{"method":"roots/list"},"a":{"method":"roots/list"}}}"#,
        ] {
            assert!(find(unclear).is_err(), "{unclear}");
        }
    }

    #[test]
    fn only_what_is_not_granted_is_taken_out_of_the_clients_capabilities() {
        let all = r#"{ "roots": {"listChanged":true}, "sampling":{} , "elicitation":{"form":{}, "url":{}},"experimental":{"x":1.0}, "tasks":{"list":{},"requests":{"sampling":{"createMessage":{}}}} }"#;
        assert_eq!(stripped(all, |_, _| true), Ok(None));
        assert_eq!(
            stripped(all, |_, _| false).unwrap().unwrap(),
            r#"{"experimental":{"x":1.0}, "tasks":{"list":{},"requests":{}} }"#
        );
        let form = stripped(all, |kind, target| kind != Kind::McpElicitation || target == "form");
        assert_eq!(
            form.unwrap().unwrap(),
            r#"{ "roots": {"listChanged":true}, "sampling":{} , "elicitation":{"form":{}},"experimental":{"x":1.0}, "tasks":{"list":{},"requests":{"sampling":{"createMessage":{}}}} }"#
        );
        assert_eq!(stripped("{}", |_, _| false), Ok(None));
        assert!(stripped(r#"{"Sampling":{}}"#, |_, _| false).is_err());
        assert!(stripped("[]", |_, _| false).is_err());
    }
}
