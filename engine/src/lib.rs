//! Leeward decides here.
//!
//! Deciding is a pure function of what arrived and when: [`Engine::step`]. The same [`input::Input`] values come from
//! live agents, a scenario, a what-if simulation or last night's journal, and the engine cannot tell which.
//!
//! Read in this order:
//!
//! - [`input`], [`effect`]: what goes in, what comes out.
//! - [`policy`]: regions, failover sets and the numbers that a decision uses.
//! - [`graph`]: regions and links; which reports are evidence for a link, and how old they are.
//! - [`fault`]: whose fault it is: the observer, a link, or a region.
//! - [`baseline`], [`weight`]: geography and capacity; the live quality of a link.
//! - [`signal`]: measurements that others inject.
//! - [`select`]: gates, then score.
//! - [`holddown`]: how long a selection stays.
//! - [`decision`]: what was decided, and every reason.
//! - [`view`]: the immutable picture that readers get.
//! - [`scenario`], [`simulate`]: a world in a file, run in virtual time.
