//! Who is registered: every agent that ever connected, until it has been gone for [`FORGET_AFTER`].
//!
//! An agent stays registered while it is away, and stays in everybody's mesh: a region that dies takes its agents'
//! sessions with it, and just then the others must keep probing it. One task owns the roster and the meshes that
//! follow from it ([`crate::mesh`]); everyone else reads the published picture or sends a [`Change`].

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use leeward_common::{
    id::AgentId,
    time::Timestamp,
    wire::v1::{AgentStatus, MeshApplied},
};

use crate::mesh::Registration;

/// How long an agent may be away before it is forgotten and leaves the mesh: as long as the journal reaches back.
pub const FORGET_AFTER: Duration = Duration::from_secs(48 * 3600);

/// Every registered agent; an immutable picture.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// The agents.
    pub members: BTreeMap<AgentId, Arc<Member>>,
}

/// One registered agent.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it registered.
    pub registration: Registration,
    /// Its session, if it has one.
    pub session: Option<Session>,
    /// When it was last connected; now, while it has a session.
    pub last_seen: Timestamp,
    /// How it fares by its own account, and when it said so.
    pub status: Option<(Timestamp, AgentStatus)>,
    /// Version of the mesh that it should have.
    pub mesh_version: u64,
    /// The newest mesh that it put into force, with the targets that it refused.
    pub mesh_applied: Option<MeshApplied>,
}

/// One session of an agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Session {
    /// Its number within this process; the newest of an agent is the valid one.
    pub id: u64,
    /// Since when.
    pub since: Timestamp,
    /// From where.
    pub remote: SocketAddr,
}
