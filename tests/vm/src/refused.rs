//! Where no backend can be used, nothing is started: there is no fallback.

use std::{fs, path::Path, time::Duration};

use crate::{
    Result,
    report::Finding,
    situation::{Where, end_of, words},
};

const MANIFEST: &str = "api = \"palisade/1\"\nid = \"refused\"\nname = \"Refused\"\nversion = \"1.0.0\"\n\
    [entry]\nkind = \"exec\"\nfile = \"attacker\"\n";
/// In /var/tmp, which the container that this is for has from outside.
const PLUGIN: &str = "/var/tmp/palisade-vm/refused";
/// Of the `palisade` command: no backend covers the demand.
const NO_BACKEND: i32 = 4;

/// Tries to run a plugin, by whichever backend there is and by each by name.
pub(crate) fn look(place: &Where) -> Result<Vec<Finding>> {
    let step = |e: std::io::Error| format!("{PLUGIN}: {e}");
    fs::create_dir_all(PLUGIN).map_err(step)?;
    fs::write(Path::new(PLUGIN).join("plugin.toml"), MANIFEST).map_err(step)?;
    fs::copy(words(&["attacker"]).concat(), Path::new(PLUGIN).join("attacker")).map_err(step)?;
    let mut found = Vec::new();
    for backend in [None, Some("process"), Some("landlock")] {
        let mut command = words(&["palisade", "run", PLUGIN, "--grant-all"]);
        command.extend(backend.iter().flat_map(|b| ["--backend".to_owned(), (*b).to_owned()]));
        let ended = end_of(place, &command, "", Duration::from_secs(60))?;
        found.push(Finding::new(
            format!("a plugin is not started by {}", backend.unwrap_or("any backend")),
            ended.status == Some(NO_BACKEND),
            format!("exit status {:?} {}", ended.status, ended.printed),
        ));
    }
    Ok(found)
}
