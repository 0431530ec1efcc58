//! What the server asks of the client: by requests of its own, and inside what it answers.

use bytes::Bytes;
use palisade_audit::RecordKind;
use palisade_broker::{Action, Bucket};
use palisade_dialect::{DialectError, NoiseBudget};
use palisade_model::{ErrorCode, Failure, text::escape};
use serde_json::json;
use tokio::io::AsyncWrite;

use super::{
    Relay,
    down::Answer,
    state::{ASKED, Open},
    writer::Writer,
};
use crate::{
    ask::{MISSING_CLIENT_CAPABILITY, Need, input_requests, needed},
    json::{Object, Unclear},
    message::{
        INVALID_PARAMS, INVALID_REQUEST, Id, METHOD_NOT_FOUND, error_line, error_line_with, number,
    },
};

impl Relay {
    /// Lets what a server asks of the client inside an answer pass the gate.
    pub(super) async fn ask_for(&self, needs: &[Need]) -> Result<(), (Need, Failure)> {
        for need in needs {
            let action =
                Action::new(RecordKind::Request).access(need.access()).rate(Bucket::Requests);
            match self.gate.admit(&self.server, action).await {
                Ok(pass) => pass.done(),
                Err(failure) => return Err((need.clone(), failure)),
            }
        }
        Ok(())
    }

    /// The request cannot be done without what is not granted (2026-07-28: MissingRequiredClientCapability).
    pub(super) fn refused_input(&self, open: &Open, need: &Need, failure: Failure) -> Answer {
        self.tell_asked(need, &failure);
        let failure = Failure {
            message: format!(
                "{} needs {} of the client: {}",
                escape(&open.method, 64),
                need.feature(),
                failure.message
            ),
            ..failure
        };
        let (number, data) = match failure.code {
            ErrorCode::Denied => {
                let needed = json!({ need.feature(): {} });
                let data = [("requiredCapabilities".to_owned(), needed)];
                (MISSING_CLIENT_CAPABILITY, data.into_iter().collect())
            }
            code => (number(code), serde_json::Map::new()),
        };
        Answer::Instead(error_line_with(Some(&open.id), number, &failure, data), failure)
    }

    pub(super) fn tell_asked(&self, need: &Need, failure: &Failure) {
        let hint =
            failure.hint.as_ref().map(|hint| format!("; allow it with {hint}")).unwrap_or_default();
        self.tell(format!("the server asked for {}, and was refused{hint}", need.feature()));
    }

    #[allow(clippy::too_many_arguments, reason = "one place, and each is a thing of its own")]
    pub(super) async fn server_asks<C, S>(
        &self,
        line: &Bytes,
        id: &Id<'_>,
        method: &str,
        params: Option<&str>,
        noise: &mut NoiseBudget,
        client: &Writer<C>,
        server: &Writer<S>,
    ) -> Result<bool, DialectError>
    where
        C: AsyncWrite + Unpin,
        S: AsyncWrite + Unpin,
    {
        let refuse = |noise: &mut NoiseBudget, number: i64, failure: &Failure| {
            // A server that does not read what it is told is one that floods.
            if server.post(error_line(Some(id.raw), number, failure)) {
                Ok(true)
            } else {
                noise.note(line.len()).map(|()| true)
            }
        };
        let (is_open, count) = {
            let state = self.lock();
            (state.asked.contains_key(&id.key), state.asked.len())
        };
        if is_open {
            let failure =
                Failure::new(ErrorCode::InvalidParams, "a request with this id is still open");
            return refuse(noise, INVALID_REQUEST, &failure);
        }
        if count >= ASKED {
            let what = format!("{ASKED} requests wait for the client already");
            let failure = Failure::new(ErrorCode::LimitExceeded, what);
            return refuse(noise, number(failure.code), &failure);
        }
        let need = match needed(method, params) {
            Ok(need) => need,
            Err(why) => {
                let what = format!("the parameters of {} are not clear: {why}", escape(method, 64));
                let failure = Failure::new(ErrorCode::InvalidParams, what);
                return refuse(noise, INVALID_PARAMS, &failure);
            }
        };
        let action = Action::new(RecordKind::Request).rate(Bucket::Requests);
        let action = match &need {
            Some(need) => action.access(need.access()),
            None => action.name(method).coalesce(),
        };
        let pass = match self.gate.admit(&self.server, action).await {
            Ok(pass) => pass,
            Err(failure) => {
                if let Some(need) = &need {
                    self.tell_asked(need, &failure);
                }
                let number = match failure.code {
                    // As a client answers that has not announced the feature.
                    ErrorCode::Denied => METHOD_NOT_FOUND,
                    code => number(code),
                };
                return refuse(noise, number, &failure);
            }
        };
        self.lock().asked.insert(id.key.clone(), pass);
        Ok(client.write(line).await)
    }
}

/// What an object asks of the client: of itself, or as a task does.
pub(super) fn carried(object: &Object<'_>) -> Result<Vec<Need>, Unclear> {
    let mut needs = input_requests(object)?;
    if let Some(task) = object.get("task").filter(|task| task.starts_with('{')) {
        needs.extend(input_requests(&Object::read(task, &["inputRequests"])?)?);
    }
    Ok(needs)
}
