//! Slow references that share no matching code with what they check.

use super::*;

/// The components of an absolute path without `..`.
fn components(path: &str) -> Option<Vec<String>> {
    use std::path::Component as C;
    if path.len() > 4095 || path.chars().any(|c| c < ' ' || ('\u{7f}'..='\u{9f}').contains(&c)) {
        return None;
    }
    let mut parts = Path::new(path).components();
    (parts.next()? == C::RootDir).then_some(())?;
    parts
        .map(|c| match c {
            C::Normal(name) => name.to_str().map(str::to_owned),
            _ => None,
        })
        .collect()
}

pub(super) fn path(scope: &str, target: &str) -> bool {
    let Some(target) = components(target) else { return false };
    match scope.split_once("/**") {
        Some((folder, _)) => {
            let folder = components(&format!("{folder}/")).unwrap();
            target.iter().take(folder.len()).eq(folder.iter())
        }
        None => components(scope).unwrap() == target,
    }
}

/// The labels of a host from the right, or the address as one label.
fn labels(host: &str) -> Option<Vec<String>> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
        return (address.is_ipv6() == bare.is_some())
            .then(|| vec![address.to_canonical().to_string()]);
    }
    let mut host: Vec<char> = host.chars().map(|c| c.to_ascii_lowercase()).collect();
    if host.last() == Some(&'.') {
        host.pop();
    }
    let labels: Vec<String> = host.rsplit(|c| *c == '.').map(|l| l.iter().collect()).collect();
    let fits = |l: &String| {
        (1..64).contains(&l.len())
            && l.chars().all(|c| "abcdefghijklmnopqrstuvwxyz0123456789-_".contains(c))
            && !(l.starts_with('-') || l.ends_with('-'))
    };
    let number = |l: &String| {
        l.parse::<u128>().is_ok()
            || l == "0x"
            || l.strip_prefix("0x").is_some_and(|h| u128::from_str_radix(h, 16).is_ok())
    };
    (host.len() < 254 && labels.iter().all(fits) && !number(&labels[0])).then_some(labels)
}

fn port(text: &str) -> Option<u32> {
    (1..=65535u32).find(|p| p.to_string() == text)
}

pub(super) fn authority(scope: &str, target: &str) -> bool {
    let (scope_host, scope_port) = match scope.rsplit_once(':') {
        Some((h, p)) if !p.ends_with(']') => (h, p),
        _ => (scope, "443"),
    };
    let Some((host, target_port)) = target.rsplit_once(':') else { return false };
    let (Some(host), Some(target_port)) = (labels(host), port(target_port)) else {
        return false;
    };
    let host_fits = match scope_host.strip_prefix("*.") {
        _ if scope_host == "*" => true,
        Some(suffix) => {
            let suffix = labels(suffix).unwrap();
            host.len() > suffix.len() && host.iter().take(suffix.len()).eq(suffix.iter())
        }
        None => labels(scope_host).unwrap() == host,
    };
    host_fits && (scope_port == "*" || port(scope_port) == Some(target_port))
}

/// The NATS rule by recursion over tokens.
pub(super) fn subject(scope: &str, target: &str) -> bool {
    fn fit(scope: &[&str], target: &[&str]) -> bool {
        match (scope, target) {
            ([], []) => true,
            ([">"], [_, ..]) => true,
            (["*", s @ ..], [_, t @ ..]) => fit(s, t),
            ([a, s @ ..], [b, t @ ..]) => a == b && fit(s, t),
            _ => false,
        }
    }
    let tokens: Vec<&str> = target.split('.').collect();
    let valid = |t: &&str| {
        !t.is_empty() && t.chars().all(|c| c.is_ascii_alphanumeric() || "_-$/:=".contains(c))
    };
    target.len() <= 256
        && tokens.len() <= 16
        && tokens.iter().all(valid)
        && fit(&scope.split('.').collect::<Vec<_>>(), &tokens)
}

pub(super) fn name(scope: &str, target: &str) -> bool {
    let valid = !target.is_empty()
        && target.len() <= 256
        && target.chars().all(|c| c.is_ascii_alphanumeric() || "._-:/@$+".contains(c));
    let (scope, target): (Vec<char>, Vec<char>) =
        (scope.chars().collect(), target.chars().collect());
    valid
        && match scope.split_last() {
            Some(('*', prefix)) => target.iter().take(prefix.len()).eq(prefix.iter()),
            _ => scope == target,
        }
}

pub(super) fn covers(kind: Kind, scope: &str, target: &str) -> bool {
    match kind.scope_form() {
        ScopeForm::Path => path(scope, target),
        ScopeForm::Authority => authority(scope, target),
        ScopeForm::Subject => subject(scope, target),
        ScopeForm::Name => name(scope, target),
    }
}
