//! `--grant`: from what a person writes to a capability, and from capabilities to grants.

use std::path::Path;

use palisade_host::{GrantOptions, PathProblem, Plugin};
use palisade_model::{
    Capability, ErrorCode, Failure, Kind,
    capability::{ScopeForm, normalize_path},
};

use crate::{cli::PluginArgs, trouble::Trouble};

/// [`parse_option`] for `--grant`.
pub(crate) fn parse(text: &str, here: &Path, home: Option<&Path>) -> Result<Capability, Trouble> {
    parse_option("--grant", text, here, home)
}

/// Reads `kind:scope` as the value of `option`. A path that does not begin with `/` is taken from `here`; one
/// that begins with `~/` from `home`, since no shell expands that in the middle of a word.
pub(crate) fn parse_option(
    option: &str,
    text: &str,
    here: &Path,
    home: Option<&Path>,
) -> Result<Capability, Trouble> {
    let bad = |why: String| {
        Trouble::usage(format!("{option} {}: {why}", palisade_model::text::escape(text, 200))).hint(
            format!("a capability is written kind:scope, as in {option} 'fs.read:/srv/texts/**'"),
        )
    };
    if cfg!(windows) && names_path(text) {
        return Err(on_windows(option, text));
    }
    let absolute = absolute(text, here, home).map_err(bad)?;
    absolute.parse().map_err(|error: palisade_model::CapabilityError| bad(error.to_string()))
}

/// Whether it is of a kind whose scope is a path.
fn names_path(text: &str) -> bool {
    let kind = text.split_once(':').and_then(|(kind, _)| Kind::parse(kind));
    kind.is_some_and(|kind| kind.scope_form() == ScopeForm::Path)
}

/// Told before the path is looked at, which would be called wrong however it is written.
fn on_windows(option: &str, text: &str) -> Trouble {
    let problem = PathProblem::Windows;
    let message = format!("{option} {}: {problem}", palisade_model::text::escape(text, 200));
    let failure = Failure::new(ErrorCode::NoBackend, message);
    failure.rule(problem.rule().unwrap_or_default()).hint(problem.hint().unwrap_or_default()).into()
}

fn absolute(text: &str, here: &Path, home: Option<&Path>) -> Result<String, String> {
    let Some((kind, scope)) = text.split_once(':') else { return Ok(text.to_owned()) };
    if !names_path(text) || scope.is_empty() || scope.starts_with('/') {
        return Ok(text.to_owned());
    }
    let (base, rest) = match scope.strip_prefix("~/") {
        Some(rest) => (home.ok_or("HOME is not set")?, rest),
        None => (here, scope),
    };
    let (rest, below) = match rest.strip_suffix("**") {
        Some(rest) => (rest, "/**"),
        None => (rest, ""),
    };
    let joined = base.join(rest);
    let joined = joined.to_str().ok_or("the folder's name is not UTF-8 text")?;
    // `..` is followed by looking, not by cutting text: what is before it may be a link.
    let real = if joined.split('/').any(|part| part == "..") {
        let real = std::fs::canonicalize(joined).map_err(|e| format!("{joined}: {e}"))?;
        real.to_str().ok_or("the folder's name is not UTF-8 text")?.to_owned()
    } else {
        normalize_path(joined).unwrap_or_else(|| joined.to_owned())
    };
    Ok(format!("{kind}:{}{below}", real.trim_end_matches('/')))
}

/// An option that cannot be meant is an error of the command line, not of the plugin.
fn as_usage(failure: Failure) -> Failure {
    match failure.code {
        ErrorCode::InvalidParams | ErrorCode::NotFound => {
            Failure { code: ErrorCode::Usage, ..failure }
        }
        _ => failure,
    }
}

/// What `--grant` says, each time it stands.
pub(crate) fn parse_all(args: &PluginArgs) -> Result<Vec<Capability>, Trouble> {
    let here = std::env::current_dir()
        .map_err(|error| Trouble::usage(format!("the current folder cannot be named: {error}")))?;
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from).filter(|p| p.is_absolute());
    args.grant.iter().map(|text| parse(text, &here, home.as_deref())).collect()
}

/// Grants what the options say, for this run. Gives what was granted.
pub(crate) async fn apply(plugin: &Plugin, args: &PluginArgs) -> Result<Vec<Capability>, Trouble> {
    let options = GrantOptions::new().for_this_host();
    let mut granted = parse_all(args)?;
    for capability in &granted {
        plugin.grant_with(capability.clone(), options).await.map_err(as_usage)?;
    }
    if args.grant_all {
        granted.extend(plugin.grant_requested_with(options).await?);
    }
    Ok(granted)
}

/// Stores what was granted for this run, once the plugin has started with it: what it cannot start with is
/// not worth remembering.
pub(crate) async fn remember(plugin: &Plugin, granted: Vec<Capability>) -> Result<(), Trouble> {
    for capability in granted {
        plugin.grant(capability).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_windows_is_refused_and_other_rights_are_not() {
        assert!(names_path(r"fs.read:C:\texts\**") && names_path("fs.write:texts/**"));
        assert!(!names_path("net.http:example.org") && !names_path("storage.kv:*"));
        let Trouble::Failure(failure) = on_windows("--grant", r"fs.read:C:\texts\**") else {
            panic!("not refused")
        };
        assert_eq!(failure.code, ErrorCode::NoBackend);
        assert!(failure.message.contains("no file or folder of Windows can be granted"));
        assert!(failure.rule.is_some() && failure.hint.unwrap().contains("storage.kv"));
    }

    #[test]
    fn relative_paths_are_taken_from_where_one_is() {
        let parse = |text| {
            parse(text, Path::new("/home/ada/work"), Some(Path::new("/home/ada")))
                .map(|c| c.to_string())
        };
        for (written, meant) in [
            ("fs.read:/srv/**", "fs.read:/srv/**"),
            ("fs.read:texts/**", "fs.read:/home/ada/work/texts/**"),
            ("fs.read:./texts/**", "fs.read:/home/ada/work/texts/**"),
            ("fs.read:**", "fs.read:/home/ada/work/**"),
            ("fs.write:notes.txt", "fs.write:/home/ada/work/notes.txt"),
            ("fs.read:~/texts/**", "fs.read:/home/ada/texts/**"),
            ("secret:relative/name", "secret:relative/name"),
        ] {
            assert_eq!(parse(written).unwrap(), meant, "{written}");
        }
        for wrong in ["fs.read", "fs.read:", "fs.raed:/srv", "fs.read:a*b"] {
            let trouble = parse(wrong).unwrap_err();
            assert_eq!(trouble.exit_status(), 2, "{wrong}");
        }
    }
}
