//! What becomes of each server: whether it is put behind Palisade, which of its variables are secrets, what
//! it is granted, and what a person should know about it.

use std::path::Path;

use palisade_model::{
    Capability, Kind,
    capability::normalize_path,
    text::{escape, looks_mixed},
};
use palisade_services::secret::SecretValue;
use serde_json::{Value as Json, json};

use super::{
    jsonc::{Node, Value},
    looks,
    servers::{Launch, Server, Shape},
    show,
};
use crate::{cli::native::Access, grant, terminal::Paint, trouble::Trouble};

/// Longest name that is shown, in characters.
const MAX_SHOWN: usize = 100;

/// A path that a server's arguments or variables name, and that exists here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundPath {
    pub(crate) path: String,
    pub(crate) is_folder: bool,
    pub(crate) access: Access,
}

/// A variable whose value moves to the secrets.
#[derive(Clone, Debug)]
pub(crate) struct Moved {
    pub(crate) variable: String,
    pub(crate) value: SecretValue,
    /// The secret's name, once it is chosen.
    pub(crate) name: String,
}

/// What is done with a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Wrap,
    /// It runs behind Palisade already.
    Already,
    /// Nothing of it runs here.
    Remote,
    /// It is left alone, and why.
    Left(&'static str),
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) place: String,
    pub(crate) name: String,
    pub(crate) action: Action,
    pub(crate) secrets: Vec<Moved>,
    pub(crate) variables: Vec<String>,
    pub(crate) paths: Vec<FoundPath>,
    pub(crate) grants: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// Programs whose first argument that is a file is the program that they run.
const INTERPRETERS: &[&str] = &[
    "node", "nodejs", "deno", "bun", "tsx", "ts-node", "python", "python3", "pypy3", "ruby",
    "perl", "php", "java", "bash", "sh", "dash", "zsh", "uv", "poetry", "pipenv", "dotnet", "lua",
];
/// Options whose value is a part of the program.
const OF_THE_PROGRAM: &[&str] = &[
    "--directory",
    "--project",
    "--python",
    "--from",
    "--prefix",
    "--require",
    "-r",
    "--import",
    "--loader",
    "-jar",
    "-cp",
    "--config-file",
    "--import-map",
];
/// Programs that hand the server over to a service of the machine, which no wall can stand around.
const CONTAINERS: &[&str] = &["docker", "podman", "nerdctl"];

/// Works out what to do with one server. Looks at paths.
pub(crate) fn plan(server: &Server<'_>) -> Planned {
    let mut plan = Planned {
        place: server.place.clone(),
        name: server.name.to_owned(),
        action: Action::Wrap,
        secrets: Vec::new(),
        variables: Vec::new(),
        paths: Vec::new(),
        grants: Vec::new(),
        warnings: Vec::new(),
    };
    match &server.shape {
        Shape::Remote => plan.action = Action::Remote,
        Shape::Other(why) => plan.action = Action::Left(why),
        Shape::Stdio(launch) if launch.is_palisade() => plan_already(&mut plan, launch),
        Shape::Stdio(launch) => plan_launch(&mut plan, launch),
    }
    plan
}

/// What runs behind Palisade already: what it is granted is shown, since the file says so and nobody may
/// have looked at it; so is a program that is only called like this one.
fn plan_already(plan: &mut Planned, launch: &Launch<'_>) {
    plan.action = Action::Already;
    let options = launch.wrapped().map(|wrapped| wrapped.options).unwrap_or_default();
    for pair in options.windows(2) {
        match pair {
            ["--grant", capability] => plan.grants.push((*capability).to_owned()),
            ["--secret", secret] => plan.grants.push(format!("secret {secret}")),
            _ => {}
        }
    }
    let this = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
    let that = Path::new(launch.command).canonicalize().ok();
    if launch.command != "palisade" && (that.is_none() || that != this) {
        let command = escape(launch.command, 300);
        plan.warnings.push(format!("it starts another program than this one: {command}"));
    }
}

fn base_name(command: &str) -> &str {
    command.rsplit(['/', '\\']).next().unwrap_or_default().trim_end_matches(".exe")
}

fn plan_launch(plan: &mut Planned, launch: &Launch<'_>) {
    if CONTAINERS.contains(&base_name(launch.command)) {
        plan.action = Action::Left(
            "it is started in a container by a service of this machine, which no wall here stands around",
        );
        return;
    }
    if launch.command.contains(char::is_whitespace)
        && launch.arguments.is_empty()
        && !Path::new(launch.command).exists()
    {
        plan.action = Action::Left("its command is a whole line; write its arguments in args");
        return;
    }
    if looks_mixed(&plan.name) {
        plan.warnings.push("its name mixes letters that look alike".to_owned());
    }
    for member in launch.env.and_then(Node::members).unwrap_or_default() {
        if let Some(name) = member.key.as_deref() {
            plan_variable(plan, name, &member.node);
        }
    }
    for (number, argument) in launch.arguments.iter().enumerate() {
        let before = number.checked_sub(1).and_then(|i| launch.arguments.get(i));
        let value_of = before.is_some_and(|before| show::is_option(before));
        let is_secret = show::hides(argument) || (value_of && !argument.starts_with('-'));
        if is_secret && !looks::is_reference(argument) {
            plan.warnings.push(format!(
                "argument {} looks like a secret; it stays in the file, and other users can see it while the server runs",
                number + 1
            ));
        }
    }
    if launch.env_file {
        plan.warnings.push(
            "the variables in its envFile do not reach it; grant those that it needs with --grant SERVER=env:NAME"
                .to_owned(),
        );
    }
    find_paths(plan, launch);
}

fn plan_variable(plan: &mut Planned, name: &str, value: &Node) {
    let shown = escape(name, MAX_SHOWN);
    let grant = format!("env:{name}");
    if value.value == Value::Null {
        return;
    }
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !is_name || grant.parse::<Capability>().is_err() {
        plan.warnings.push(format!("the variable {shown} has a name that cannot be granted"));
        return;
    }
    if let Some(group) = palisade_manifest::environment::foreign_code(name) {
        plan.warnings.push(format!(
            "the variable {shown} does not reach it: {group} lets loaders run code that is not the server's"
        ));
        return;
    }
    let text = value.text().unwrap_or_default();
    let is_path = text.starts_with('/') && Path::new(text).exists();
    let is_secret = !looks::is_reference(text)
        && !is_path
        && (looks::secret_name(name) || looks::secret_value(text));
    match SecretValue::new(text) {
        Ok(value) if is_secret => {
            plan.secrets.push(Moved { variable: name.to_owned(), value, name: String::new() });
        }
        _ => {
            plan.variables.push(name.to_owned());
            if is_path {
                add_path(plan, text);
            }
        }
    }
}

/// Paths among the arguments that exist here and are not the program itself.
fn find_paths(plan: &mut Planned, launch: &Launch<'_>) {
    let name = base_name(launch.command);
    let versioned = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let mut program_follows = INTERPRETERS.contains(&name) || INTERPRETERS.contains(&versioned);
    let mut before = "";
    for argument in &launch.arguments {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) if option.starts_with('-') => (option, value),
            _ => (before, *argument),
        };
        before = argument;
        if OF_THE_PROGRAM.contains(&option) || !value.starts_with('/') {
            continue;
        }
        let path = Path::new(value);
        if program_follows && path.is_file() {
            program_follows = false;
        } else if path.exists() {
            add_path(plan, value);
        }
    }
}

fn add_path(plan: &mut Planned, path: &str) {
    let Some(path) = normalize_path(path) else { return };
    if path == "/" {
        plan.warnings.push("it names /, and all of this machine cannot be granted".to_owned());
        return;
    }
    let is_folder = Path::new(&path).is_dir();
    if plan.paths.iter().all(|known| known.path != path) {
        plan.paths.push(FoundPath { path, is_folder, access: Access::None });
    }
}

impl FoundPath {
    fn grant(&self) -> Option<Capability> {
        let kind = match self.access {
            Access::Read => Kind::FsRead,
            Access::Write => Kind::FsWrite,
            Access::None => return None,
        };
        let below = if self.is_folder { "/**" } else { "" };
        let capability = Capability::new(kind, &format!("{}{below}", self.path)).ok()?;
        // A name with a wildcard in it would mean more than it is.
        let scope = capability.path()?;
        (scope.path() == self.path && scope.covers_below() == self.is_folder).then_some(capability)
    }
}

/// Adds what `--grant SERVER=CAP` says.
pub(crate) fn add_grants(plans: &mut [Planned], options: &[String]) -> Result<(), Trouble> {
    let here = std::env::current_dir()
        .map_err(|error| Trouble::usage(format!("the current folder cannot be named: {error}")))?;
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from).filter(|p| p.is_absolute());
    for option in options {
        // A server's name may have a `=` in it, a capability's kind not: the last before the first colon.
        let wrong = || {
            Trouble::usage(format!("--grant {}: it is written SERVER=CAP", escape(option, 200)))
                .hint("for example --grant 'fetch=net.http:example.org'")
        };
        let kind_end = option.find(':').ok_or_else(wrong)?;
        let equals = option.get(..kind_end).and_then(|head| head.rfind('=')).ok_or_else(wrong)?;
        let (server, capability) = option.split_at(equals);
        let capability = capability.trim_start_matches('=');
        let capability = grant::parse(capability, &here, home.as_deref())?.to_string();
        let mut found = false;
        for plan in plans.iter_mut().filter(|p| p.name == server && p.action == Action::Wrap) {
            found = true;
            if !plan.grants.contains(&capability) {
                plan.grants.push(capability.clone());
            }
        }
        if !found {
            let names: Vec<String> = plans
                .iter()
                .filter(|plan| plan.action == Action::Wrap)
                .map(|plan| escape(&plan.name, MAX_SHOWN))
                .collect();
            let server = escape(server, MAX_SHOWN);
            return Err(Trouble::usage(format!(
                "--grant: there is no server {server} to put behind Palisade"
            ))
            .hint(if names.is_empty() {
                "there is none".into()
            } else {
                format!("there are: {}", names.join(", "))
            }));
        }
    }
    Ok(())
}

/// A server's name as the beginning of a secret's.
pub(crate) fn name_part(server: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+');
    let name: String = server.chars().take(100).map(|c| if fits(c) { c } else { '_' }).collect();
    if name.is_empty() { "server".to_owned() } else { name }
}

impl Planned {
    /// Palisade's command line, from `mcp` to `--`.
    pub(crate) fn options(&self, state_dir: Option<&str>) -> Vec<String> {
        let mut options = vec!["mcp".to_owned()];
        let mut add = |option: &str, value: String| options.extend([option.to_owned(), value]);
        if let Some(dir) = state_dir {
            add("--state-dir", dir.to_owned());
        }
        for secret in &self.secrets {
            add("--secret", format!("{}={}", secret.variable, secret.name));
        }
        for capability in self.granted() {
            add("--grant", capability);
        }
        options.push("--".to_owned());
        options
    }

    fn granted(&self) -> Vec<String> {
        let paths = self.paths.iter().filter_map(|path| Some(path.grant()?.to_string()));
        let variables = self.variables.iter().map(|name| format!("env:{name}"));
        variables.chain(paths).chain(self.grants.iter().cloned()).collect()
    }

    fn not_granted(&self) -> impl Iterator<Item = &FoundPath> {
        self.paths.iter().filter(|path| path.grant().is_none())
    }

    /// For programs. Without the values of secrets.
    pub(crate) fn to_json(&self) -> Json {
        let (action, why) = match &self.action {
            Action::Wrap => ("wrap", None),
            Action::Already => ("already", None),
            Action::Remote => ("remote", None),
            Action::Left(why) => ("left", Some(why)),
        };
        let secrets =
            self.secrets.iter().map(|s| json!({ "variable": s.variable, "secret": s.name }));
        json!({
            "place": self.place,
            "name": self.name,
            "action": action,
            "why": why,
            "secrets": secrets.collect::<Vec<_>>(),
            "grants": self.granted(),
            "paths_not_granted": self.not_granted().map(|path| &path.path).collect::<Vec<_>>(),
            "warnings": self.warnings,
        })
    }

    /// For people.
    pub(crate) fn in_words(&self, paint: Paint) -> String {
        let name = paint.bold(escape(&self.name, MAX_SHOWN));
        let mut text = match &self.action {
            Action::Wrap => format!("{} {name}", paint.good("behind Palisade")),
            Action::Already => {
                format!("{} {name}: it runs behind Palisade already", paint.dim("left alone"))
            }
            Action::Remote => {
                format!(
                    "{} {name}: it is a remote server, nothing of it runs here",
                    paint.dim("left alone")
                )
            }
            Action::Left(why) => format!("{} {name}: {why}", paint.warn("left alone")),
        };
        let mut line = |what: &str, said: String| text.push_str(&format!("\n    {what:<9} {said}"));
        for secret in &self.secrets {
            let (variable, name) = (escape(&secret.variable, MAX_SHOWN), escape(&secret.name, 300));
            line("secret", format!("{variable}, kept as {name}"));
        }
        for capability in self.granted() {
            line("grant", escape(&capability, 400));
        }
        for path in self.not_granted() {
            line(
                "no access",
                format!("{} (--grant-paths read, or write)", escape(&path.path, 400)),
            );
        }
        for warning in &self.warnings {
            line(&paint.warn("warning"), warning.clone());
        }
        text
    }
}
