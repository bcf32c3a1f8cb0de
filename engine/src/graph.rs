//! Regions and links: which reports are evidence for a link, and how old they are.

use std::time::Duration;

/// Evidence older than this is forgotten whatever the policy says.
pub const RETENTION: Duration = Duration::from_secs(120);
