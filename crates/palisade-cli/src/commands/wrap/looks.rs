//! What looks like a secret. A guess: what is taken for one and is none is kept with the secrets and
//! works all the same; what is one and is not taken for one stays where it was.

/// Parts of variable names behind which secrets stand, in upper case.
const NAMES: &[&str] = &[
    "KEY",
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "PASSCODE",
    "CREDENTIAL",
    "AUTH",
    "COOKIE",
    "BEARER",
    "JWT",
    "PRIVATE",
    "SIGNATURE",
    "WEBHOOK",
    "CONNECTION_STRING",
    "DATABASE_URL",
    "DSN",
];
/// The same, where they are a whole word of the name and not the whole name: `GITHUB_PAT`, but not `PATH`.
const WORDS: &[&str] = &["PAT", "PWD", "PASS", "PIN", "SID", "SALT", "OTP"];

/// How values begin that services hand out as keys and tokens.
const PREFIXES: &[&str] = &[
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "gldt-",
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "rk_test_",
    "whsec_",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xoxe",
    "xoxs-",
    "xapp-",
    "AKIA",
    "ASIA",
    "AIza",
    "ya29.",
    "1//0",
    "eyJ",
    "hf_",
    "npm_",
    "pypi-",
    "dop_v1_",
    "SG.",
    "shpat_",
    "lin_api_",
    "secret_",
    "ntn_",
    "figd_",
    "gsk_",
    "pplx-",
    "tvly-",
    "BSA",
    "r8_",
    "hvs.",
    "atlasv1.",
    "ATATT",
    "PMAK-",
    "sntrys_",
    "sbp_",
    "AGE-SECRET-KEY-",
    "-----BEGIN",
    "Bearer ",
    "Basic ",
    "fc-",
];

/// Shortest value that is looked at for its randomness, in bytes.
const RANDOM_LEN: usize = 20;
/// Bits a character from which a value counts as random: English words and names stay below.
const RANDOM_BITS: f64 = 3.4;

/// Whether a variable's name, or an option's, says that a secret stands behind it.
pub(crate) fn secret_name(name: &str) -> bool {
    let upper: String = name.to_ascii_uppercase().replace('-', "_");
    let mut words = upper.split('_').filter(|word| !word.is_empty());
    NAMES.iter().any(|part| upper.contains(part))
        || (upper.trim_matches('_').contains('_') && words.any(|word| WORDS.contains(&word)))
}

/// Whether a value is one of those that services hand out, or random.
pub(crate) fn secret_value(value: &str) -> bool {
    PREFIXES.iter().any(|prefix| value.len() > prefix.len() + 4 && value.starts_with(prefix))
        || has_password(value)
        || is_random(value)
}

/// Whether it is an address with a password in it.
fn has_password(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority
        .rsplit_once('@')
        .and_then(|(user, _)| user.split_once(':'))
        .is_some_and(|(_, password)| !password.is_empty())
}

fn is_random(value: &str) -> bool {
    let token =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'=' | b'+' | b'/' | b'.');
    let has = |f: fn(&u8) -> bool| value.as_bytes().iter().any(f);
    value.len() >= RANDOM_LEN
        && value.bytes().all(token)
        && !is_path(value)
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_alphabetic)
        && entropy(value) >= RANDOM_BITS
}

/// A path, or a name of a package or a model with slashes in it: words between slashes and no padding.
fn is_path(value: &str) -> bool {
    value.starts_with(['/', '.', '~']) || (value.contains('/') && !value.ends_with('='))
}

/// Shannon entropy in bits a byte.
fn entropy(value: &str) -> f64 {
    let mut counts = [0u32; 256];
    for byte in value.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let length = value.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / length;
            -share * share.log2()
        })
        .sum()
}

/// Whether the client puts something else in the place of a part of it: `${input:token}`, `${HOME}`,
/// `$VAR`.
pub(crate) fn is_reference(value: &str) -> bool {
    value.contains("${")
        || value.strip_prefix('$').is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known() {
        for name in [
            "GITHUB_TOKEN",
            "OPENAI_API_KEY",
            "apiKey",
            "api-key",
            "DB_PASSWORD",
            "CLIENT_SECRET",
            "GH_PAT",
            "DB_PWD",
            "DATABASE_URL",
            "SLACK_SESSION_COOKIE",
            "SENTRY_DSN",
            "AUTHORIZATION",
        ] {
            assert!(secret_name(name), "{name}");
        }
        for name in [
            "PATH",
            "PWD",
            "HOME",
            "DEBUG",
            "NODE_ENV",
            "LOG_LEVEL",
            "PORT",
            "MEMORY_FILE_PATH",
            "TZ",
            "REGION",
        ] {
            assert!(!secret_name(name), "{name}");
        }
    }

    #[test]
    fn values_of_secrets_are_known() {
        for value in [
            "ghp_0123456789abcdefghij",
            "sk-abcdefghijkl",
            "xoxb-1234-5678",
            "AKIAIOSFODNN7EXAMPLE",
            "postgres://app:hunter2@db.example.org/app",
            "Bearer abcdef",
            "-----BEGIN PRIVATE KEY-----\nx",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
            "dGhpcyBpcyBhIDMyIGJ5dGUga2V5IQ==",
        ] {
            assert!(secret_value(value), "{value}");
        }
        for value in [
            "",
            "true",
            "1",
            "production",
            "info",
            "https://api.example.org/v1?x=1",
            "/home/ada/notes.json",
            "America/Argentina/Buenos_Aires",
            "@modelcontextprotocol/server-everything",
            "postgres://db.example.org/app",
            "us-east-1",
            "sk-",
            "a-long-name-with-several-words",
            "meta-llama/Llama-3.1-70B-Instruct",
        ] {
            assert!(!secret_value(value), "{value}");
        }
    }

    #[test]
    fn what_the_client_fills_in_is_a_reference() {
        for value in ["${input:token}", "Bearer ${TOKEN}", "${env:HOME}/x", "$TOKEN", "${A:-b}"] {
            assert!(is_reference(value), "{value}");
        }
        for value in ["", "$", "a$b", "$1.50 each", "{x}"] {
            assert!(!is_reference(value), "{value}");
        }
    }
}
