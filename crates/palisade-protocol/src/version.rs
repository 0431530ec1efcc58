//! Agreeing on a protocol version. Pure.

use serde::{Deserialize, Serialize};

use crate::FrameError;

/// The version this crate speaks.
pub const VERSION: u32 = 1;

/// An inclusive range of protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRange {
    /// Lowest version spoken.
    pub min: u32,
    /// Highest version spoken.
    pub max: u32,
}

impl VersionRange {
    /// What this crate speaks.
    pub const SUPPORTED: Self = Self { min: VERSION, max: VERSION };

    /// What the plugin's side of a connection chooses: the highest version that both speak.
    #[must_use]
    pub fn choose(self, offered: Self) -> Option<u32> {
        let (low, high) = (self.min.max(offered.min), self.max.min(offered.max));
        (low <= high).then_some(high)
    }
}

/// Accepts the version that the plugin chose from those that the host offered.
///
/// # Errors
/// [`FrameError::Version`] where the choice lies below the lowest or above the highest: a plugin that
/// could force an older version could bring back what the newer one mended.
pub fn agree(offered: VersionRange, chosen: u32) -> Result<u32, FrameError> {
    if (offered.min..=offered.max).contains(&chosen) {
        Ok(chosen)
    } else {
        Err(FrameError::Version { chosen, min: offered.min, max: offered.max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_within_the_offer_is_agreed() {
        let offered = VersionRange { min: 2, max: 4 };
        for chosen in 0..8 {
            assert_eq!(agree(offered, chosen).is_ok(), (2..=4).contains(&chosen), "{chosen}");
        }
        assert_eq!(agree(offered, 1), Err(FrameError::Version { chosen: 1, min: 2, max: 4 }));
        assert!(
            agree(VersionRange { min: 3, max: 2 }, 3).is_err(),
            "an empty offer has no version"
        );
    }

    #[test]
    fn a_plugin_chooses_the_highest_common_version() {
        let mine = VersionRange { min: 1, max: 3 };
        assert_eq!(mine.choose(VersionRange { min: 2, max: 9 }), Some(3));
        assert_eq!(mine.choose(VersionRange { min: 4, max: 9 }), None);
        assert_eq!(mine.choose(VersionRange { min: 0, max: 1 }), Some(1));
    }
}
