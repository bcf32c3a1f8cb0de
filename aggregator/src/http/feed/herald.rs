//! The task that looks at what is published and tells what changed.
//!
//! A decision is looked at as soon as it is published. Everything else may wait for a moment: with many regions a look
//! takes some milliseconds, and it must never take more than a tenth of one core.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{Glance, Version, look::Look};
use crate::http::App;

/// The least time between two looks without a decision.
const PAUSE: Duration = Duration::from_millis(100);

/// How many times as long as a look the pause after it is, at least.
const REST: u32 = 9;

/// How often is looked while nothing is published: a picture that grows old is news.
const IDLE: Duration = Duration::from_secs(1);

/// Tells what changes, until the feed is closed. Owns nothing; ends with the server.
pub(in crate::http) async fn run(app: App) {
    let mut published = app.shared.view.subscribe();
    let mut changes = app.feed.changes.subscribe();
    let (mut rested, mut due) = (Instant::now(), None);
    loop {
        tokio::select! {
            closed = changes.wait_for(|changes| changes.closed) => {
                drop(closed);
                return;
            }
            Ok(()) = published.changed() => {}
            () = sleep_until(due.unwrap_or_else(|| Instant::now() + IDLE)) => {}
        }
        if !app.places.any() {
            app.feed.forget_unless(|| app.places.any());
            due = None;
            continue;
        }
        let (glance, began) = (app.glance(), Instant::now());
        let before = app.feed.seen();
        let is_decided = before
            .as_ref()
            .is_some_and(|before| before.version() != Version::of(&glance.view));
        if began < rested && !is_decided {
            due = Some(rested);
            continue;
        }
        look(&app, before.as_ref(), glance);
        (rested, due) = (Instant::now() + PAUSE.max(began.elapsed() * REST), None);
    }
}

fn look(app: &App, before: Option<&Arc<Look>>, glance: Glance) {
    if let Some(before) = before.filter(|before| before.is_of(&glance)) {
        app.feed.tell(Some(before), Arc::clone(before), &[]);
        return;
    }
    let began = Instant::now();
    let look = Look::at(glance, &app.shared.name);
    let events = before.map_or_else(Vec::new, |before| look.since(before));
    let http = &app.shared.metrics.http;
    for event in &events {
        http.events.get_or_create(&event.name().into()).inc();
    }
    app.feed.tell(before, Arc::new(look), &events);
    http.look_seconds.observe(began.elapsed().as_secs_f64());
}

impl App {
    /// What can be seen now.
    pub(in crate::http) fn glance(&self) -> Glance {
        Glance {
            view: self.shared.view.load_full(),
            at: self.shared.clock.now(),
        }
    }
}
