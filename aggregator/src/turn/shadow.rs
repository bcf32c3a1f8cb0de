//! The shadow policy: set in a turn, on the same terms as what the engine knows, and never told to the engine.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Staged, Turn};
use crate::shadow::{AskedShadow, Setting};

impl Turn {
    /// The shadow policy that is set, now and whenever it changes. Ends with the turn.
    #[must_use]
    pub fn shadow(&self) -> watch::Receiver<Arc<Setting>> {
        self.shadow.subscribe()
    }

    /// Notes another shadow policy for the store and the audit log, on the same terms.
    pub(super) fn stage_shadow(&self, asked: &AskedShadow, staged: &mut Staged) -> bool {
        let current = staged.shadow.clone();
        let current = current.unwrap_or_else(|| Arc::clone(&self.shadow.borrow()));
        if let Err(conflict) = asked.condition.check(current.current()) {
            staged.changes.push_back(Err(conflict));
            return false;
        }
        let setting = current.after(staged.now, asked);
        staged.changes.push_back(Ok(setting.version));
        staged.writes.shadow(&(&setting).into());
        staged.audit_shadow(&setting);
        staged.shadow = Some(Arc::new(setting));
        true
    }

    /// A write that failed may be on disk all the same.
    pub(super) fn read_shadow(&self) {
        let setting = Setting::of(&*self.store);
        self.shadow.send_if_modified(|own| {
            let is_other = **own != setting;
            if is_other {
                *own = Arc::new(setting);
            }
            is_other
        });
    }
}
