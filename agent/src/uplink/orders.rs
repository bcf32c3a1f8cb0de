//! Orders come in, findings go out.
//!
//! The agent's own word holds here as for the mesh: what is not a path of its plan, which its file allows, is declined.
//! Every order is answered by a finding. A finding is kept as a batch is; for an aggregator whose build takes none it
//! counts as stored.

use leeward_common::{
    finding::{Declined, Finding},
    time::{Clock as _, SystemClock},
    wire::{
        findings::{self, Findings},
        limits, v1,
    },
};
use tracing::{debug, info};

use super::{Probing, Uplink, connection::Live, flows::FlowTable};
use crate::{
    bandwidth::surveyor::SurveyErrand,
    errands::TraceErrand,
    net::clock::monotonic_ns,
    spool::{Change, Settled},
};

/// Orders that are answered. Each answer takes its place among the batches, so there must not be any number of them.
pub(super) const ORDERS_PER_SECOND: u32 = 64;

impl<P: Probing> Uplink<P> {
    pub(super) fn on_order(&mut self, order: &v1::Order) {
        if !self.orders.take(monotonic_ns()) {
            debug!(
                order = order.order,
                "too many orders at once; this one is passed over"
            );
            return;
        }
        let taken = match (&order.trace, &order.bandwidth) {
            (Some(trace), _) => self.on_trace_order(order.order, trace),
            (None, Some(bandwidth)) => {
                let v1::BandwidthOrder { target, heavy } = bandwidth.clone();
                let order = order.order;
                let errand = SurveyErrand {
                    order,
                    target,
                    heavy,
                };
                self.errands.survey(errand).map_err(str::to_owned)
            }
            (None, None) => {
                Err("this build does not know what is ordered; update the agent".to_owned())
            }
        };
        if let Err(reason) = taken {
            info!(order = order.order, reason, "order declined");
            let order = order.order;
            self.on_finding(Finding::Declined(Declined { order, reason }));
        }
    }

    fn on_trace_order(&self, order: u64, wanted: &v1::TraceOrder) -> Result<(), String> {
        let v1::TraceOrder { target, kind, mtu } = wanted;
        let paths = self.admitted.iter().flat_map(|admitted| &admitted.paths);
        let mut paths = paths.filter(|own| (&own.path.target, &own.path.kind) == (target, kind));
        let path = paths
            .next()
            .ok_or_else(|| format!("this agent does not probe {target} by {kind}"))?;
        let errand = TraceErrand {
            order,
            path: path.clone(),
            mtu: *mtu,
        };
        Ok(self.errands.trace(errand)?)
    }

    /// Puts what was found into the spool under the next sequence.
    pub(super) fn on_finding(&mut self, finding: Finding) {
        self.on_findings(vec![finding]);
    }

    /// Puts what was found together, at most [`limits::FINDINGS`], into the spool under the next sequence.
    pub(super) fn on_findings(&mut self, findings: Vec<Finding>) {
        let found = Findings {
            agent: self.identity.agent.clone(),
            boot_epoch: self.identity.boot_epoch,
            sequence: self.spool.next_sequence(),
            at: SystemClock.now(),
            findings,
        };
        self.push_frame(None, (found.at, found.at), findings::frame(&found));
        self.publish();
    }

    /// Keeps what the flows did, and tells of paths whose flows are unlike.
    pub(super) fn on_flows(&mut self, table: FlowTable) {
        let mut unlike = table.findings();
        while !unlike.is_empty() {
            let rest = unlike.split_off(unlike.len().min(limits::FINDINGS));
            self.on_findings(std::mem::replace(&mut unlike, rest));
        }
        self.figures.set_flows(table);
    }

    /// Whether an aggregator is connected whose build would not understand findings.
    pub(super) fn takes_no_findings(&self, index: usize) -> bool {
        let live = self.aggregators[index].live.as_ref();
        live.is_some_and(|live: &Live| !live.findings)
    }

    /// Nothing that was found goes to this aggregator.
    pub(super) fn pass_findings_over(&mut self, index: usize) {
        let over: Vec<u64> = self.spool.findings_missing_at(index).collect();
        let mut gone = Vec::new();
        for place in over {
            let key = self.spool.get(place).map(|own| own.key);
            let settled = key.and_then(|key| self.spool.settle(index, key, Settled::Stored));
            if settled.is_some_and(|(_, _, is_free)| is_free) {
                gone.push(Change::Gone(place));
            }
        }
        self.tell(&gone);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use leeward_common::{finding::trace, report::ProbeKind};

    use super::{
        super::fake::{Authority, FakeAggregator, Peer, Rig, until},
        *,
    };

    fn order(order: u64, target: &str) -> v1::FromAggregator {
        v1::FromAggregator::Order(v1::Order {
            order,
            trace: Some(v1::TraceOrder {
                target: target.parse().unwrap(),
                kind: ProbeKind::Icmp,
                mtu: true,
            }),
            bandwidth: None,
        })
    }

    async fn declined(peer: &Peer) -> (u64, String) {
        match peer.findings().await.findings.as_slice() {
            [Finding::Declined(declined)] => (declined.order, declined.reason.clone()),
            other => panic!("not declined: {other:?}"),
        }
    }

    fn route(order: u64) -> Finding {
        let mut route = trace::sample(&["10.9.0.1", "10.0.0.1"]);
        route.order = Some(order);
        Finding::Trace(Box::new(route))
    }

    #[tokio::test]
    async fn an_order_becomes_an_errand_and_its_finding_is_kept_until_it_is_durable() {
        let authority = Authority::new();
        let at = FakeAggregator::new(&authority);
        let mut rig = Rig::new(&authority, &[at.address]);
        let (mut peer, hello) = at.accept().await;
        assert!(hello.orders);
        peer.welcomed(0, true).await;
        peer.set_up().await;
        rig.plan().await;
        peer.say(&order(5, "t1")).await;
        let errand = rig.errands.recv().await.unwrap();
        assert_eq!((errand.order, errand.mtu), (5, true));
        assert_eq!(errand.path.address.to_string(), "10.0.0.1");

        rig.found.send(route(5)).await.unwrap();
        let found = peer.findings().await;
        assert_eq!((found.sequence, &found.findings), (0, &vec![route(5)]));
        peer.close();

        // Not acknowledged: it comes again, the same, and in the sequence of the batches.
        let peer = at.welcome(0).await;
        assert_eq!(peer.findings().await, found);
        rig.found.send(route(6)).await.unwrap();
        assert_eq!(peer.findings().await.sequence, 1);
        assert_eq!(rig.figures.waiting(), 2);
    }

    #[tokio::test]
    async fn what_the_agent_does_not_probe_it_does_not_trace() {
        let authority = Authority::new();
        let at = FakeAggregator::new(&authority);
        let mut rig = Rig::new(&authority, &[at.address]);
        let mut peer = at.welcome(0).await;
        peer.set_up().await;
        rig.plan().await;
        peer.say(&order(5, "elsewhere")).await;
        let told = declined(&peer).await;
        assert_eq!(
            told,
            (5, "this agent does not probe elsewhere by icmp".to_owned())
        );
        let unknown = v1::FromAggregator::Order(v1::Order {
            order: 6,
            trace: None,
            bandwidth: None,
        });
        peer.say(&unknown).await;
        assert!(declined(&peer).await.1.contains("update the agent"));
        assert!(rig.errands.try_recv().is_err());
    }

    #[tokio::test]
    async fn an_agent_that_cannot_measure_bandwidth_says_so() {
        let authority = Authority::new();
        let at = FakeAggregator::new(&authority);
        let mut rig = Rig::new(&authority, &[at.address]);
        let mut peer = at.welcome(0).await;
        peer.set_up().await;
        rig.plan().await;
        let wanted = v1::BandwidthOrder {
            target: "t1".parse().unwrap(),
            heavy: true,
        };
        peer.say(&v1::FromAggregator::Order(v1::Order {
            order: 7,
            trace: None,
            bandwidth: Some(wanted),
        }))
        .await;
        let (number, reason) = declined(&peer).await;
        assert_eq!(number, 7);
        assert!(reason.contains("cannot measure bandwidth"), "{reason}");
    }

    #[tokio::test]
    async fn orders_beyond_what_may_wait_are_declined() {
        let authority = Authority::new();
        let at = FakeAggregator::new(&authority);
        let mut rig = Rig::new(&authority, &[at.address]);
        let mut peer = at.welcome(0).await;
        peer.set_up().await;
        rig.plan().await;
        let places = crate::errands::TRACES_MAX as u64;
        for number in 0..=places {
            peer.say(&order(number, "t1")).await;
        }
        let (number, reason) = declined(&peer).await;
        assert_eq!(number, places);
        assert!(reason.contains("too many traces wait"), "{reason}");
    }

    #[tokio::test]
    async fn an_aggregator_of_an_older_build_gets_batches_only_and_holds_up_nothing() {
        let authority = Authority::new();
        let (old, new) = (
            FakeAggregator::new(&authority),
            FakeAggregator::new(&authority),
        );
        let mut rig = Rig::new(&authority, &[old.address, new.address]);
        // One is found before anybody is connected, one after.
        rig.found.send(route(1)).await.unwrap();
        until("a finding", || rig.figures.waiting() == 1).await;
        let (mut older, _) = old.accept().await;
        older.welcomed(0, false).await;
        let mut newer = new.welcome(0).await;
        let table = older.set_up().await;
        let plan = rig.plan().await;
        rig.found.send(route(2)).await.unwrap();
        assert_eq!(newer.paths().await.table, table);
        newer.table_durable(table).await;
        let mut sequences = vec![newer.findings().await.sequence];
        sequences.push(newer.findings().await.sequence);
        sequences.sort_unstable();
        assert_eq!(sequences, [0, 1]);
        rig.close_window(plan.version).await;
        assert_eq!(older.batch().await.sequence, 2);
        assert_eq!(newer.batch().await.sequence, 2);
        newer.durable(&[0, 1, 2]).await;
        older.durable(&[2]).await;
        until("an empty spool", || rig.figures.waiting() == 0).await;
    }
}
