//! The servers in a client's configuration: where each client keeps them, what kind each is, and the
//! changes of text that put a server behind Palisade and take it out again. Pure.
//!
//! | Client | Where |
//! |---|---|
//! | Claude Desktop, Cursor, Windsurf, Cline, Gemini, Copilot (`.mcp.json`) | `mcpServers` |
//! | Claude Code | `mcpServers` in `.mcp.json`; in `~/.claude.json` also `projects.PATH.mcpServers` |
//! | VS Code | `servers` in `mcp.json`, `mcp.servers` in `settings.json` |
//! | Zed | `context_servers` in `settings.json`; older: the program in an object `command` |

use super::jsonc::{self, Edit, Member, Node, Value};

/// A server as it is configured.
#[derive(Debug)]
pub(crate) struct Server<'t> {
    /// The object in which it stands, as a path of names.
    pub(crate) place: String,
    pub(crate) name: &'t str,
    pub(crate) node: &'t Node,
    pub(crate) shape: Shape<'t>,
}

/// What kind of server it is.
#[derive(Debug)]
pub(crate) enum Shape<'t> {
    /// The client starts it and talks over stdin and stdout.
    Stdio(Launch<'t>),
    /// The client connects to it.
    Remote,
    /// Neither, and why it is left alone.
    Other(&'static str),
}

/// How a server is started.
#[derive(Debug)]
pub(crate) struct Launch<'t> {
    /// The object in which the members below stand.
    holder: &'t Node,
    program: &'t Member,
    pub(crate) command: &'t str,
    args: Option<&'t Node>,
    pub(crate) arguments: Vec<&'t str>,
    pub(crate) env: Option<&'t Node>,
    /// Whether the client reads further variables from a file.
    pub(crate) env_file: bool,
}

/// Why a configuration cannot be read, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) offset: usize,
    pub(crate) what: String,
}

impl Misfit {
    fn at(node: &Node, what: impl Into<String>) -> Self {
        Self { offset: node.span.start, what: what.into() }
    }
}

/// The member of this name. Clients do not agree which of two counts.
fn find<'t>(object: &'t Node, name: &str) -> Result<Option<&'t Member>, Misfit> {
    let mut found =
        object.members().unwrap_or_default().iter().filter(|m| m.key.as_deref() == Some(name));
    let first = found.next();
    match found.next() {
        Some(second) => {
            Err(Misfit { offset: second.key_span.start, what: format!("{name} stands here twice") })
        }
        None => Ok(first),
    }
}

fn unique(object: &Node) -> Result<(), Misfit> {
    let mut seen = std::collections::BTreeSet::new();
    for member in object.members().unwrap_or_default() {
        if let Some(key) = &member.key
            && !seen.insert(key)
        {
            let what = "a name stands twice in this object".to_owned();
            return Err(Misfit { offset: member.key_span.start, what });
        }
    }
    Ok(())
}

/// Every server of a configuration, in order.
pub(crate) fn servers(root: &Node) -> Result<Vec<Server<'_>>, Misfit> {
    if root.members().is_none() {
        return Err(Misfit::at(root, "a client's configuration is an object"));
    }
    let mut maps: Vec<(String, &Node)> = Vec::new();
    for name in ["mcpServers", "servers", "context_servers"] {
        maps.extend(find(root, name)?.map(|map| (name.to_owned(), &map.node)));
    }
    if let Some(mcp) = find(root, "mcp")? {
        maps.extend(find(&mcp.node, "servers")?.map(|map| ("mcp.servers".to_owned(), &map.node)));
    }
    if let Some(projects) = find(root, "projects")? {
        unique(&projects.node)?;
        for project in projects.node.members().unwrap_or_default() {
            let Some(name) = &project.key else { continue };
            if let Some(map) = find(&project.node, "mcpServers")? {
                maps.push((format!("projects.{name}.mcpServers"), &map.node));
            }
        }
    }
    if maps.is_empty() {
        return Err(Misfit::at(
            root,
            "there are no MCP servers in it: mcpServers, servers (VS Code) and context_servers (Zed) are looked for",
        ));
    }
    let mut servers = Vec::new();
    for (place, map) in maps {
        let Some(members) = map.members() else {
            return Err(Misfit::at(map, format!("{place} is not an object")));
        };
        unique(map)?;
        for member in members {
            let Some(name) = member.key.as_deref() else {
                return Err(Misfit {
                    offset: member.key_span.start,
                    what: "the name of a server is no text".into(),
                });
            };
            let shape = shape(&member.node)?;
            servers.push(Server { place: place.clone(), name, node: &member.node, shape });
        }
    }
    Ok(servers)
}

fn shape(entry: &Node) -> Result<Shape<'_>, Misfit> {
    if entry.members().is_none() {
        return Ok(Shape::Other("it is not an object"));
    }
    unique(entry)?;
    let member = |name: &str| find(entry, name);
    let kind = match member("type")?.or(member("transport")?) {
        Some(kind) => kind.node.text(),
        None => None,
    };
    match kind {
        None | Some("stdio" | "local") => {}
        Some(
            "http" | "sse" | "streamable-http" | "streamableHttp" | "streamable_http" | "ws"
            | "remote",
        ) => {
            return Ok(Shape::Remote);
        }
        Some(_) => return Ok(Shape::Other("its type is not known")),
    }
    let Some(command) = member("command")? else {
        for name in ["url", "serverUrl", "httpUrl"] {
            if member(name)?.is_some() {
                return Ok(Shape::Remote);
            }
        }
        return Ok(Shape::Other("it has no command"));
    };
    let (holder, program) = match &command.node.value {
        Value::Object(_) => {
            unique(&command.node)?;
            match find(&command.node, "path")? {
                Some(path) => (&command.node, path),
                None => return Ok(Shape::Other("its command has no path")),
            }
        }
        _ => (entry, command),
    };
    launch(entry, holder, program)
}

fn launch<'t>(entry: &'t Node, holder: &'t Node, program: &'t Member) -> Result<Shape<'t>, Misfit> {
    let Some(command) = program.node.text().filter(|text| !text.trim().is_empty()) else {
        return Ok(Shape::Other("its command is not a text"));
    };
    let args = find(holder, "args")?.map(|args| &args.node);
    let mut arguments = Vec::new();
    match args.map(|args| &args.value) {
        None | Some(Value::Null) => {}
        Some(Value::Array(items)) => {
            for item in items {
                match item.node.text() {
                    Some(text) => arguments.push(text),
                    None => return Ok(Shape::Other("its args are not all text")),
                }
            }
        }
        Some(_) => return Ok(Shape::Other("its args are not a list")),
    }
    let env = find(holder, "env")?.map(|env| &env.node).filter(|env| env.value != Value::Null);
    if let Some(env) = env {
        unique(env)?;
        let Some(members) = env.members() else {
            return Ok(Shape::Other("its env is not an object"));
        };
        let readable = |member: &Member| {
            member.key.is_some()
                && !matches!(
                    member.node.value,
                    Value::Text(None) | Value::Array(_) | Value::Object(_)
                )
        };
        if !members.iter().all(readable) {
            return Ok(Shape::Other("its env has a value that is no text"));
        }
    }
    // A path may have spaces in it; a name that is looked up in PATH hardly has.
    let mut words = command.split_whitespace();
    let is_name = words.next().is_some_and(|word| !word.contains(['/', '\\', '$']));
    if arguments.is_empty() && is_name && words.next().is_some() {
        return Ok(Shape::Other("its command is a whole line; write its arguments in args"));
    }
    let env_file = find(entry, "envFile")?.is_some();
    Ok(Shape::Stdio(Launch { holder, program, command, args, arguments, env, env_file }))
}

/// What Palisade's own command line says in a wrapped entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrapped<'t> {
    /// From `mcp` to `--`.
    pub(crate) options: Vec<&'t str>,
    /// Variable and name of the secret.
    pub(crate) secrets: Vec<(&'t str, &'t str)>,
}

impl<'t> Launch<'t> {
    /// Whether it is Palisade that is started.
    pub(crate) fn is_palisade(&self) -> bool {
        let name = self.command.rsplit(['/', '\\']).next().unwrap_or_default();
        matches!(name, "palisade" | "palisade.exe") && self.arguments.first() == Some(&"mcp")
    }

    /// What stands in front of the real command, if there is one behind Palisade.
    pub(crate) fn wrapped(&self) -> Option<Wrapped<'t>> {
        let end = self.arguments.iter().position(|argument| *argument == "--")?;
        if !self.is_palisade() || self.arguments.len() < end + 2 {
            return None;
        }
        let options: Vec<&str> = self.arguments.iter().take(end + 1).copied().collect();
        let values = options.windows(2).filter_map(|pair| match pair {
            ["--secret", value] => value.split_once('='),
            _ => None,
        });
        Some(Wrapped { secrets: values.collect(), options })
    }

    /// Puts `palisade` and `options` (from `mcp` to `--`) in front of the command, and takes the variables
    /// away for which `moved` is true.
    pub(crate) fn wrap<S: AsRef<str>>(
        &self,
        text: &str,
        palisade: &str,
        options: &[S],
        moved: impl Fn(&str) -> bool,
    ) -> Vec<Edit> {
        let mut elements: Vec<String> = options.iter().map(|o| quoted(o.as_ref())).collect();
        elements.push(text.get(self.program.node.span.clone()).unwrap_or_default().to_owned());
        let mut edits = vec![Edit::replace(&self.program.node, quoted(palisade))];
        match self.args {
            Some(args) if args.items().is_some() => {
                edits.extend(jsonc::prepend(text, args, &elements));
            }
            Some(null) => edits.push(Edit::replace(null, format!("[{}]", elements.join(", ")))),
            None => {
                let before = text.get(..self.program.key_span.start).unwrap_or_default();
                let blank = before.trim_end_matches([' ', '\t', '\n', '\r']).len();
                let blank = before.get(blank..).filter(|b| !b.is_empty()).unwrap_or(" ");
                let at = self.program.node.span.end;
                let text = format!(",{blank}\"args\": [{}]", elements.join(", "));
                edits.push(Edit { span: at..at, text });
            }
        }
        if let Some(env) = self.env {
            edits
                .extend(jsonc::remove_members(text, env, |m| m.key.as_deref().is_some_and(&moved)));
        }
        edits
    }

    /// Takes Palisade away again, and adds these variables where they are missing.
    pub(crate) fn unwrap(
        &self,
        text: &str,
        wrapped: &Wrapped<'_>,
        variables: &[(&str, &str)],
    ) -> Vec<Edit> {
        let Some(args) = self.args else { return Vec::new() };
        let count = wrapped.options.len();
        let command = args.items().and_then(|items| items.get(count));
        let command = command.and_then(|c| text.get(c.node.span.clone())).unwrap_or_default();
        let mut edits = vec![Edit::replace(&self.program.node, command)];
        edits.extend(jsonc::remove_front(text, args, count + 1));
        let present = |name: &str| {
            let members = self.env.and_then(Node::members).unwrap_or_default();
            members.iter().any(|m| m.key.as_deref() == Some(name))
        };
        let added: Vec<String> = variables
            .iter()
            .filter(|(name, _)| !present(name))
            .map(|(name, value)| format!("{}: {}", quoted(name), quoted(value)))
            .collect();
        match self.env {
            _ if added.is_empty() => {}
            Some(env) => edits.extend(jsonc::append_members(text, env, &added)),
            None => {
                let env = format!("\"env\": {{{}}}", added.join(", "));
                edits.extend(jsonc::append_members(text, self.holder, &[env]));
            }
        }
        edits
    }
}

/// The text of `node` after changes within it.
pub(crate) fn changed(text: &str, node: &Node, edits: Vec<Edit>) -> String {
    let start = node.span.start;
    let moved = edits
        .into_iter()
        .map(|edit| Edit { span: edit.span.start - start..edit.span.end - start, text: edit.text });
    jsonc::apply(text.get(node.span.clone()).unwrap_or_default(), moved.collect())
}

/// Where in `older` the entry stands from which the wrapped one was made: the same place and name, and
/// wrapping it once more in the same way gives the same text.
pub(crate) fn original<'o>(
    text: &str,
    server: &Server<'_>,
    older: &str,
    older_servers: &'o [Server<'o>],
) -> Option<(&'o Server<'o>, &'o Launch<'o>)> {
    let Shape::Stdio(launch) = &server.shape else { return None };
    let wrapped = launch.wrapped()?;
    let before = older_servers.iter().find(|s| s.place == server.place && s.name == server.name)?;
    let Shape::Stdio(old) = &before.shape else { return None };
    let moved = |name: &str| wrapped.secrets.iter().any(|(variable, _)| *variable == name);
    let edits = old.wrap(older, launch.command, &wrapped.options, moved);
    let again = changed(older, before.node, edits);
    (text.get(server.node.span.clone()) == Some(again.as_str())).then_some((before, old))
}

/// A text as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
