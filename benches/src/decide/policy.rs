//! What a contestant is: seconds in, a region out.

use super::world::Second;

/// Chooses a region from what was seen.
pub trait Policy {
    /// Its name in figures.
    fn name(&self) -> &str;

    /// The region selected from now on, given that `second` has passed and `selected` was selected in it. Only what
    /// was seen may be looked at, never the truth.
    fn choose(&mut self, second: &Second, selected: usize) -> usize;

    /// Why it last moved, in its own words, if it has any.
    fn why(&self) -> Option<&str> {
        None
    }
}
