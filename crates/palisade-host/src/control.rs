//! Control: what somebody may do with a host, as typed operations.
//!
//! A [`Control`] has a caller in it. Every operation on it, and on the [`Plugin`]s that it gives, is
//! that caller's and passes the gate: changing anything takes an owner, everything is recorded. The
//! command line, a socket and a server are transports of this and have no checks of their own.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use palisade_audit::RecordKind;
use palisade_broker::{Action, Bucket, Caller, Event, Published};
use palisade_manifest::{Manifest, Source};
use palisade_model::{
    Access, ErrorCode, Failure, Generation, Kind, Origin, Payload, PluginId, PluginRef,
    text::{escape, nearest},
};
use serde::Serialize;

use crate::{
    HostError, LoadOptions, Plugin,
    cell::PluginCell,
    content,
    error::StoreError,
    hops,
    host::{HostInner, blocking},
    loaded::{self, Files, Loaded},
    state_dir,
};

/// What an error says, for the record.
fn error_of(error: &HostError) -> Failure {
    Failure::new(error.code(), error.to_string())
}

/// Control over a host on behalf of one caller. Cloning is cheap. Does not keep the host alive.
#[derive(Clone)]
pub struct Control {
    host: Arc<HostInner>,
    caller: Arc<Caller>,
}

impl Control {
    pub(crate) fn new(host: Arc<HostInner>, caller: Arc<Caller>) -> Self {
        Self { host, caller }
    }

    pub(crate) fn host(&self) -> &Arc<HostInner> {
        &self.host
    }

    /// Who acts.
    #[must_use]
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// What is only read is not recorded, but is nobody else's business either.
    pub(crate) fn owner(&self) -> Result<(), Failure> {
        self.host.check_open()?;
        if self.caller.is_owner() {
            return Ok(());
        }
        let message = format!("{} may not look into this host", self.caller.principal());
        Err(Failure::new(ErrorCode::Denied, message)
            .rule("only the application and its operators control plugins")
            .hint("ask the operator of this host"))
    }

    /// Loads the plugin in the folder `dir`: reads and checks its manifest and configuration, and notes
    /// the plugin as known. Nothing of the plugin runs. Loading again reads the manifest again; a
    /// changed one makes the grants for the old one void.
    ///
    /// The configuration is that of `options`, with the manifest's defaults for what it leaves out.
    ///
    /// # Errors
    /// [`HostError::Folder`] and [`HostError::Manifest`] for what is in the folder,
    /// [`HostError::Content`] where its files are not those that the manifest names, [`HostError::Config`],
    /// [`HostError::OriginConflict`] where the id is known from elsewhere, [`HostError::ChangedWhileRunning`], and a [`Failure`] for callers that are not owners.
    pub async fn load(
        &self,
        dir: impl AsRef<Path>,
        options: LoadOptions,
    ) -> Result<Plugin, HostError> {
        self.owner()?;
        let _one_at_a_time = self.host.loading.lock().await;
        let dir = dir.as_ref().to_owned();
        let (root, path, owner, source, manifest) = blocking(move || {
            let (root, path, owner) = loaded::folder(&dir)?;
            let source = palisade_manifest::read(&root)?;
            let manifest =
                palisade_manifest::parse_named(&source.bytes, source.syntax, source.file_name)?;
            Ok::<_, HostError>((root, path, owner, source, manifest))
        })
        .await??;
        let reference =
            PluginRef { id: manifest.id.clone(), origin: Origin::Folder { path, owner } };
        self.admit(manifest, reference, root, Some(source), options).await
    }

    /// Loads a plugin whose manifest was made here and not by its author: a command that stands for one
    /// ([`Origin::Command`]). `root` is the folder that it sees as its own; what else it needs is in
    /// `options`. For the rest as [`Control::load`].
    ///
    /// # Errors
    /// As [`Control::load`].
    pub async fn load_manifest(
        &self,
        manifest: Manifest,
        origin: Origin,
        root: impl AsRef<Path>,
        options: LoadOptions,
    ) -> Result<Plugin, HostError> {
        self.owner()?;
        let _one_at_a_time = self.host.loading.lock().await;
        let dir = root.as_ref().to_owned();
        let (root, _, _) = blocking(move || loaded::folder(&dir)).await??;
        let reference = PluginRef { id: manifest.id.clone(), origin };
        self.admit(manifest, reference, root, None, options).await
    }

    async fn admit(
        &self,
        manifest: Manifest,
        reference: PluginRef,
        root: PathBuf,
        source: Option<Source>,
        options: LoadOptions,
    ) -> Result<Plugin, HostError> {
        let reference = Arc::new(reference);
        let digest = manifest.digest().0;
        let make = |files: Files, generation: u64| {
            let generation = Generation(generation);
            Loaded::new(manifest.clone(), files, generation, &options, &self.host.policy)
        };
        // A configuration that does not fit must not count as seen.
        make(Files::Folder(root.clone()), 1)?;
        let names_its_files = source.is_some() && manifest.runs_its_own_file();
        let is_sealed = manifest.content.is_some() && names_its_files;
        if let Err(failure) = self.host.policy.check_seal(is_sealed) {
            self.refuse_load(&reference, failure.clone());
            return Err(failure.into());
        }
        let seen = self.host.store.see(Arc::clone(&reference), digest, self.host.now()).await;
        let known = seen.map_err(|error| match error {
            conflict @ HostError::OriginConflict { .. } => {
                self.refuse_load(&reference, error_of(&conflict));
                conflict
            }
            other => other,
        })?;
        let files = self.files(&manifest, &reference, root, source).await?;
        let new = make(files, known.generation)?;
        let mut plugins = self.host.plugins.write().unwrap_or_else(PoisonError::into_inner);
        let cell = match plugins.get(&reference.id) {
            Some(cell) => {
                let cell = Arc::clone(cell);
                let old = cell.loaded();
                let same = old.digest == new.digest
                    && old.config.get() == new.config.get()
                    && old.backend == new.backend
                    && old.code == new.code
                    && old.env == new.env
                    && old.workdir == new.workdir
                    && old.secret_env == new.secret_env;
                if !same && !cell.replace(new) {
                    return Err(HostError::ChangedWhileRunning(reference.id.clone()));
                }
                cell
            }
            None => {
                let data = state_dir::data_dir(&self.host.state_dir, &reference);
                let cell =
                    PluginCell::new(Arc::clone(&reference), known.key, known.slot, data, new);
                let cell = Arc::new(cell);
                plugins.insert(reference.id.clone(), Arc::clone(&cell));
                cell
            }
        };
        Ok(Plugin::new(self.clone(), cell))
    }

    /// Writes down that a plugin is not loaded, and why.
    fn refuse_load(&self, reference: &Arc<PluginRef>, failure: Failure) {
        let why = failure.message.clone();
        let action = Action::new(RecordKind::Launch).about(Arc::clone(reference)).detail(&why);
        let _ = self.host.gate().refuse(&self.caller, &action, failure);
    }

    /// Where the plugin's files are taken from: a verified copy, where its manifest says which they are.
    async fn files(
        &self,
        manifest: &Manifest,
        reference: &Arc<PluginRef>,
        root: PathBuf,
        source: Option<Source>,
    ) -> Result<Files, HostError> {
        let Some(wanted) = manifest.content else { return Ok(Files::Folder(root)) };
        let (state, plugin) = (self.host.state_dir.clone(), Arc::clone(reference));
        let digest = manifest.digest();
        let taken = blocking(move || {
            content::take_over(&state, &plugin, &root, wanted, (digest, source.as_ref()))
        })
        .await?;
        match taken {
            Ok(sealed) => Ok(Files::Sealed(Arc::new(sealed))),
            Err(error) => {
                if matches!(error, HostError::Content { .. }) {
                    self.refuse_load(reference, error_of(&error));
                }
                Err(error)
            }
        }
    }

    /// The loaded plugin with this id.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where none is loaded, [`ErrorCode::Denied`] for callers that are not
    /// owners and may not call it either.
    pub fn plugin(&self, id: &PluginId) -> Result<Plugin, Failure> {
        self.host.check_open()?;
        self.host.gate().decide(&self.caller, &Access::new(Kind::PluginCall, id.as_str()))?;
        let plugins = self.host.plugins.read().unwrap_or_else(PoisonError::into_inner);
        match plugins.get(id) {
            Some(cell) => Ok(Plugin::new(self.clone(), Arc::clone(cell))),
            None => {
                let failure =
                    Failure::new(ErrorCode::NotFound, format!("no plugin {id} is loaded"));
                // Which other plugins there are is told to owners only.
                let ids = plugins.keys().map(PluginId::as_str);
                Err(match nearest(id.as_str(), ids.filter(|_| self.caller.is_owner())) {
                    Some(near) => failure.hint(format!("did you mean {near}?")),
                    None => failure,
                })
            }
        }
    }

    /// The loaded plugins, by id.
    ///
    /// # Errors
    /// [`ErrorCode::Denied`] for callers that are not owners.
    pub fn list(&self) -> Result<Vec<Plugin>, Failure> {
        self.owner()?;
        Ok(self.host.cells().into_iter().map(|cell| Plugin::new(self.clone(), cell)).collect())
    }

    /// Every plugin that this host has ever loaded and not forgotten, by id.
    ///
    /// # Errors
    /// [`ErrorCode::Denied`] for callers that are not owners; errors of the database.
    pub async fn known(&self) -> Result<Vec<PluginRef>, Failure> {
        self.owner()?;
        Ok(self.host.store.known().await?)
    }

    /// Forgets a plugin with its grants and consents, so that another origin may use its id. What it
    /// keeps in its data folder stays there, and is found again by the same plugin only.
    ///
    /// # Errors
    /// [`ErrorCode::Conflict`] while it runs, [`ErrorCode::NotFound`] where it is not known, and what
    /// the gate refuses.
    pub async fn forget(&self, id: &PluginId) -> Result<(), Failure> {
        self.host.check_open()?;
        let _one_at_a_time = self.host.loading.lock().await;
        let action = Action::new(RecordKind::Grant).name(id.as_str()).detail("forget the plugin");
        self.host
            .gate()
            .run(&self.caller, action, || async {
                {
                    let mut plugins =
                        self.host.plugins.write().unwrap_or_else(PoisonError::into_inner);
                    if let Some(state) = plugins.get(id).and_then(|cell| cell.retire().err()) {
                        let message = format!("plugin {id} is {state}");
                        return Err(
                            Failure::new(ErrorCode::Conflict, message).hint("stop it first")
                        );
                    }
                    plugins.remove(id);
                }
                let known: Result<bool, StoreError> = self.host.store.forget(id.clone()).await;
                let (state, of) = (self.host.state_dir.clone(), id.clone());
                blocking(move || content::forget(&state, &of)).await?;
                if known? {
                    return Ok(());
                }
                Err(Failure::new(ErrorCode::NotFound, format!("no plugin {id} is known")))
            })
            .await
    }

    /// Publishes an event in the caller's name to everybody who may receive its subject. Inside a
    /// service's handler it follows from what the asking plugin handles, and counts on from there.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParams`] for a subject that is none or data that cannot be written as JSON,
    /// [`ErrorCode::LimitExceeded`] for too much of it, and what the gate refuses.
    pub async fn emit<T: Serialize + ?Sized>(
        &self,
        subject: &str,
        data: &T,
    ) -> Result<Published, Failure> {
        self.host.check_open()?;
        let data = Payload::json(data).map_err(|e| {
            let what = escape(&e.to_string(), 200);
            Failure::new(ErrorCode::InvalidParams, format!("the event's data: {what}"))
        })?;
        let action = Action::new(RecordKind::Event)
            .access(Access::new(Kind::EventPublish, subject))
            .rate(Bucket::Events)
            .payload(&data);
        let mut event = Event::new(subject, data.clone(), Arc::clone(self.caller.principal()));
        event.hops = hops::current().unwrap_or(0);
        self.host
            .gate()
            .run(&self.caller, action, || async { Ok(self.host.bus.publish(event).await?) })
            .await
    }
}
