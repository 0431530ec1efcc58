//! The walls whole, and without one of the layers that can be taken away.

use std::sync::Arc;

use palisade_process::{Layer, Options};

use crate::{launch::Walls, record::Launcher, scene::Stage, trouble::Result};

/// The layers, by their names in the matrix.
pub(super) const LAYERS: [(&str, Layer); 2] =
    [("seccomp", Layer::Seccomp), ("landlock", Layer::Landlock)];

/// Walls without a layer, by its name.
pub(super) type Thinner = Vec<(&'static str, Arc<Walls>)>;

/// The whole walls of a launcher, and, unless there are to be `whole_only`, the thinner ones.
pub(super) async fn walls(
    stage: &Stage,
    launcher: Launcher,
    whole_only: bool,
) -> Result<(Arc<Walls>, Thinner)> {
    let options = |without| Options { cgroups: launcher.cgroups(), without, ..Options::default() };
    let whole = Arc::new(Walls::new(options(None), stage).await?);
    let mut thinner = Vec::new();
    for (name, layer) in LAYERS.into_iter().filter(|_| !whole_only) {
        thinner.push((name, Arc::new(Walls::new(options(Some(layer)), stage).await?)));
    }
    Ok((whole, thinner))
}
