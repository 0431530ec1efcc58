//! Fetching: redirects as new requests, and unpacking.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use tokio::time::Instant;

use super::{
    Caps, Client, Request, Response, collect,
    decode::{self, Coding, Unpacker},
    headers,
};
use crate::{Decide, EgressError, Scheme, Target};

impl Client {
    /// Makes a request with a right `net.http` and follows its redirects; each is decided, looked up and
    /// checked as if it had been asked for. The answer's body is unpacked, unless the request has an
    /// `Accept-Encoding` of its own.
    ///
    /// To another origin no `Authorization` and no `Cookie` is sent. From `https` none leads to `http`.
    ///
    /// # Errors
    /// Those of [`Client::send`]; [`EgressError::Redirect`].
    pub async fn fetch(
        &self,
        decide: &dyn Decide,
        request: Request,
        caps: &Caps,
    ) -> Result<Response, EgressError> {
        let deadline = Instant::now() + caps.total;
        let Request { mut method, mut target, mut headers, mut body } = request;
        let unpacks = !headers.contains_key(header::ACCEPT_ENCODING);
        if unpacks {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(decode::ACCEPTED));
        }
        let mut redirects = 0;
        loop {
            let mut one = http::Request::new(Full::new(body.clone()));
            *one.method_mut() = method.clone();
            *one.headers_mut() = headers.clone();
            let answer = self.send_by(decide, &target, one, caps, deadline).await?;
            let Some(next) = redirect(&target, &answer)? else {
                return finish(answer, target, redirects, unpacks, &method, caps).await;
            };
            if redirects == caps.redirects {
                return Err(EgressError::Redirect(format!("there are more than {redirects}")));
            }
            redirects += 1;
            if !target.same_origin(&next) {
                headers::strip_credentials(&mut headers);
            }
            if becomes_get(answer.status(), &method) {
                method = Method::GET;
                body = Bytes::new();
                headers::strip_body(&mut headers);
            }
            target = next;
        }
    }
}

/// Where an answer sends the client to, if it does.
fn redirect<B>(from: &Target, answer: &http::Response<B>) -> Result<Option<Target>, EgressError> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let mut locations = answer.headers().get_all(header::LOCATION).iter();
    let (location, more) = (locations.next(), locations.next());
    let Some(location) = location else { return Ok(None) };
    if more.is_some() {
        return Err(EgressError::Redirect("it leads to two places".into()));
    }
    let location =
        location.to_str().map_err(|_| EgressError::Redirect("its Location is not ASCII".into()))?;
    let next = from.join(location).map_err(|error| EgressError::Redirect(error.to_string()))?;
    if from.scheme() == Scheme::Https && next.scheme() == Scheme::Http {
        return Err(EgressError::Redirect("it leads from https to http".into()));
    }
    Ok(Some(next))
}

/// RFC 9110, 15.4.2 to 15.4.4.
fn becomes_get(status: StatusCode, method: &Method) -> bool {
    match status.as_u16() {
        303 => *method != Method::HEAD,
        301 | 302 => *method == Method::POST,
        _ => false,
    }
}

async fn finish(
    answer: http::Response<super::ResponseBody>,
    target: Target,
    redirects: u8,
    unpacks: bool,
    method: &Method,
    caps: &Caps,
) -> Result<Response, EgressError> {
    let (mut parts, mut body) = answer.into_parts();
    let has_body = *method != Method::HEAD && !body.is_end_stream();
    let coding = if unpacks && has_body { Coding::of(&parts.headers)? } else { None };
    let body = match coding {
        None => collect(body).await?,
        Some(coding) => {
            let mut unpacker = Unpacker::new(coding, caps);
            while let Some(frame) = body.frame().await {
                if let Ok(piece) = frame?.into_data() {
                    unpacker.push(&piece)?;
                }
            }
            parts.headers.remove(header::CONTENT_ENCODING);
            parts.headers.remove(header::CONTENT_LENGTH);
            unpacker.finish()?
        }
    };
    if body.len() as u64 > caps.decompressed_bytes {
        let limit = caps.decompressed_bytes;
        return Err(EgressError::TooLarge { what: "the body of the answer", limit, unit: "bytes" });
    }
    Ok(Response { status: parts.status, headers: parts.headers, body, target, redirects })
}
