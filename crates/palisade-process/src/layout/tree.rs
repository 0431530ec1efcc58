//! The new root: what stands at each path, and what the second wall says of it.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path};

use palisade_model::{Capability, Kind};
use palisade_sandbox::SandboxError;

use super::{
    Inputs,
    refused::{checked, is_reserved, plain, unsupported},
};
use crate::{
    ablation::Layer,
    landlock,
    plan::{Bind, PlanBuilder, format},
    way_out,
};

/// Most files and folders of a private tmpfs.
const TMP_INODES: u64 = 16_384;

/// Attributes of a mount (mount_setattr(2)).
pub(super) mod attr {
    pub(in crate::layout) const RDONLY: u64 = 1;
    pub(in crate::layout) const NOSUID: u64 = 2;
    pub(in crate::layout) const NODEV: u64 = 4;
    pub(in crate::layout) const NOEXEC: u64 = 8;
}

/// A place of the new root.
pub(super) enum Node {
    Dir,
    Link(String),
    File(String),
    Tmpfs { size: u64, attributes: u64, mode: u32 },
    Bind(Bind),
}

pub(super) struct Tree<'a> {
    inputs: &'a Inputs<'a>,
    nodes: BTreeMap<String, Node>,
    /// Landlock: rights, path, and whether it is a file.
    rules: Vec<(u64, String, bool)>,
    idmaps: Vec<[u32; 4]>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(inputs: &'a Inputs<'a>) -> Self {
        Self { inputs, nodes: BTreeMap::new(), rules: Vec::new(), idmaps: Vec::new() }
    }

    /// What the second wall allows at and below a path.
    pub(super) fn rule(&mut self, rights: u64, path: &str, is_file: bool) {
        self.rules.push((rights, path.to_owned(), is_file));
    }

    /// Whether nothing stands at `path` but a folder for what lies below.
    #[cfg(feature = "ablation")]
    pub(super) fn is_free(&self, path: &str) -> bool {
        matches!(self.nodes.get(path), None | Some(Node::Dir))
    }

    /// The paths of the granted rights of a kind.
    #[cfg(feature = "ablation")]
    pub(super) fn folders_of(&self, kind: Kind) -> Vec<String> {
        let rights = self.inputs.spec.rights.of_kind(kind);
        rights.filter_map(|right| right.path()).map(|scope| scope.path().to_owned()).collect()
    }

    /// Whether something stands at `path` already.
    pub(super) fn has(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    pub(super) fn put(&mut self, path: &str, node: Node) {
        for parent in Path::new(path).ancestors().skip(1) {
            if let Some(p) = parent.to_str().filter(|p| *p != "/" && !p.is_empty()) {
                self.nodes.entry(p.to_owned()).or_insert(Node::Dir);
            }
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// Whether `path` lies below something that is bound, and so is not ours to make.
    pub(super) fn below_bind(&self, path: &str) -> bool {
        Path::new(path)
            .ancestors()
            .skip(1)
            .any(|a| a.to_str().is_some_and(|a| matches!(self.nodes.get(a), Some(Node::Bind(_)))))
    }

    /// Whether a folder above `path` is granted for writing.
    fn is_granted_above(&self, path: &str) -> bool {
        self.inputs.spec.rights.of_kind(Kind::FsWrite).any(|right| {
            right.path().is_some_and(|scope| {
                scope.covers_below()
                    && scope.path() != path
                    && Path::new(path).starts_with(scope.path())
            })
        })
    }

    /// Shows a file or folder of the runtime, read-only.
    pub(super) fn show(&mut self, path: &str, folder: bool) {
        let flags = format::bind::OPTIONAL
            | if folder { format::bind::RECURSIVE } else { format::bind::FILE };
        let attributes = attr::RDONLY | attr::NOSUID | attr::NODEV;
        self.put(
            path,
            Node::Bind(Bind {
                source: path.into(),
                target: path.into(),
                attributes,
                flags,
                identity: (0, 0),
                idmap: None,
            }),
        );
        self.rule(landlock::READ_EXECUTE, path, !folder);
    }

    /// Binds a checked path, its owner shown as the plugin where the launcher can do that.
    pub(super) fn bind_checked(
        &mut self,
        source: &str,
        target: &str,
        attributes: u64,
        rights: u64,
        writable: bool,
    ) -> Result<(), SandboxError> {
        let is_file = self.bind_unruled(source, target, attributes, writable)?;
        self.rule(rights, target, is_file);
        Ok(())
    }

    /// The same without a word to the second wall. Says whether it is a file.
    pub(super) fn bind_unruled(
        &mut self,
        source: &str,
        target: &str,
        attributes: u64,
        writable: bool,
    ) -> Result<bool, SandboxError> {
        let meta = checked(source)?;
        let folder = meta.is_dir();
        let mut flags = if folder { format::bind::RECURSIVE } else { format::bind::FILE };
        let mut idmap = None;
        if self.inputs.machine.privileged {
            let (uid, gid) = self.inputs.host_ids();
            let map = [meta.uid(), uid, meta.gid(), gid];
            if meta.uid() != uid {
                let index = self.idmaps.iter().position(|m| *m == map).unwrap_or_else(|| {
                    self.idmaps.push(map);
                    self.idmaps.len() - 1
                });
                idmap = Some(index);
                if !writable {
                    flags |= format::bind::IDMAP_OPTIONAL;
                }
            }
        }
        let bind = Bind {
            source: source.into(),
            target: target.into(),
            attributes,
            flags,
            identity: (meta.dev(), meta.ino()),
            idmap,
        };
        self.put(target, Node::Bind(bind));
        Ok(!folder)
    }

    /// Shows installed software under its own paths.
    pub(super) fn code(&mut self) -> Result<(), SandboxError> {
        for path in self.inputs.code {
            let text = path.to_str().unwrap_or_default();
            if text.is_empty() || is_reserved(text) {
                return Err(SandboxError::Path {
                    path: palisade_model::text::escape(&path.to_string_lossy(), 300),
                    what: "is part of the wall itself, or all of the machine, and cannot be shown as software".into(),
                });
            }
            let shown = matches!(self.nodes.get(text), Some(Node::Bind(_)));
            // A folder granted for writing will lie over what is shown above it, but not over this.
            if !shown && (!self.below_bind(text) || self.is_granted_above(text)) {
                const ATTRIBUTES: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV;
                self.bind_checked(text, text, ATTRIBUTES, landlock::READ_EXECUTE, false)?;
            }
        }
        Ok(())
    }

    pub(super) fn grants(&mut self) -> Result<(), SandboxError> {
        const RO: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
        const RW: u64 = attr::NOSUID | attr::NODEV | attr::NOEXEC;
        // Parents before what lies below them; reading before writing of the same path.
        let mut rights: Vec<&Capability> =
            self.inputs.spec.rights.iter().filter(|c| c.path().is_some()).collect();
        rights.sort_by_key(|c| (c.path().map(|p| p.path().to_owned()), c.kind()));
        for right in rights {
            let Some(scope) = right.path() else { continue };
            let path = scope.path();
            if let Some(why) = unsupported(right, true) {
                return Err(SandboxError::Unsupported { capability: right.to_string(), why });
            }
            let is_dir = fs::metadata(path).is_ok_and(|m| m.is_dir());
            if is_dir && !scope.covers_below() {
                return Err(SandboxError::Unsupported {
                    capability: right.to_string(),
                    why: format!("a folder is shown with all that it holds; write {path}/**"),
                });
            }
            match right.kind() {
                Kind::FsRead => {
                    // Rights add up: what is shown, or granted for writing, can be read already.
                    let already = matches!(self.nodes.get(path), Some(Node::Bind(_)));
                    if already || self.below_bind(path) {
                        plain(path)?;
                    } else {
                        self.bind_checked(path, path, RO, landlock::READ, false)?;
                    }
                }
                Kind::FsWrite => self.bind_checked(path, path, RW, landlock::READ_WRITE, true)?,
                Kind::Device => self.bind_checked(
                    path,
                    path,
                    attr::RDONLY | attr::NOSUID | attr::NOEXEC,
                    landlock::DEVICE,
                    false,
                )?,
                // Made part of the runtime by `programs`.
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn emit(self, plan: &mut PlanBuilder) -> Result<(), SandboxError> {
        for [disk_uid, plugin_uid, disk_gid, plugin_gid] in &self.idmaps {
            plan.idmap(*disk_uid, *plugin_uid, *disk_gid, *plugin_gid);
        }
        let options = self.inputs.options;
        for (path, node) in &self.nodes {
            // Below a bind nothing can be made, and nothing need be: what is bound has it, or the plan
            // fails at the target.
            let ours = !self.below_bind(path);
            match node {
                Node::Dir if ours => plan.dir(path, 0o755),
                Node::Link(target) if ours => plan.symlink(target, path),
                Node::File(content) if ours => plan.file(path, 0o644, content),
                Node::Tmpfs { size, attributes, mode } => {
                    if ours {
                        plan.dir(path, 0o755);
                    }
                    plan.tmpfs(
                        path,
                        *size,
                        TMP_INODES,
                        *mode,
                        u32::try_from(options.attributes(*attributes)).unwrap_or(0),
                    );
                }
                Node::Bind(bind) => {
                    if ours {
                        if bind.flags & format::bind::FILE != 0 {
                            plan.file(path, 0o644, "");
                        } else {
                            plan.dir(path, 0o755);
                        }
                    }
                    let attributes = options.attributes(bind.attributes);
                    plan.bind(&Bind { attributes, ..bind.clone() });
                }
                _ => {}
            }
        }
        let abi = self.inputs.machine.abi();
        if abi.0 > 0 && options.has(Layer::Landlock) {
            plan.landlock(abi.handled_fs(), abi.connecting(), abi.scopes());
            for (rights, path, is_file) in &self.rules {
                plan.landlock_rule(abi.fit(*rights, *is_file), path);
            }
            if abi.connecting() != 0 {
                way_out::landlock(plan, self.inputs.spec);
            }
        }
        Ok(())
    }
}
