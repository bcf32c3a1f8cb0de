//! Policies: the one in force, and the shadow that only records what it would do.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap, response::Response};
use leeward_common::{
    api::{
        problem::{Code, Place, Problem},
        v1::{Policies, ShadowPolicy, ShadowSpec, WrittenPolicy, check_why},
    },
    id::InvalidId,
};

use super::{
    Now, define,
    noun::{Noun, Terms},
    replays,
};
use crate::{
    config::PolicyText,
    http::{
        answer::{Written, answer},
        convert,
        error::Refused,
    },
    intent::Conflict,
    shadow::{self, AskedShadow, Setting},
    shared::Shared,
};

/// Both policies: how the shadow stands, where they differ, and a scoreboard.
#[utoipa::path(get, path = "/v1/policies", tag = "policies", responses((status = 200, description = "The policies", body = Policies)))]
pub(in crate::http) async fn policies(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let now = Now::of(&shared);
    let (setting, standing) = shared.shadow.look();
    let policies = convert::policies(&now.moment(), &setting, &standing);
    answer(&headers, &policies)
}

/// The policy in force, with every default spelt out.
#[utoipa::path(get, path = "/v1/policies/current", tag = "policies", responses((status = 200, description = "The policy in force", body = WrittenPolicy)))]
pub(in crate::http) async fn current(
    State(shared): State<Shared>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    answer(
        &headers,
        &convert::written_policy(&Now::of(&shared).view.policy),
    )
}

/// The shadow policy. There is one or none.
pub(in crate::http) struct ShadowNoun;

impl Noun for ShadowNoun {
    const ROUTE: &'static str = "/v1/policies/shadow";
    const NAME: &'static str = "shadow policy";
    const PARAMETER: Option<&'static str> = None;
    const TAG: &'static str = "policies";
    type Spec = ShadowSpec;
    type Answer = ShadowPolicy;

    fn parse(_: &str) -> Result<Self, InvalidId> {
        Ok(Self)
    }

    fn written(&self, shared: &Shared) -> Result<Option<Written>, Refused> {
        written(&shared.shadow.setting.borrow())
    }

    fn unknown(&self, _: &Shared) -> Refused {
        Refused::new(
            Code::UnknownPolicy,
            "no shadow policy is set",
            "PUT /v1/policies/shadow sets one",
        )
    }

    fn file(&self, shared: &Shared) -> Option<String> {
        shared.shadow.setting.borrow().file().map(str::to_owned)
    }

    async fn put(
        self,
        shared: &Shared,
        terms: Terms,
        spec: ShadowSpec,
    ) -> Result<(bool, Written), Refused> {
        let policy = sound(shared, &spec)?;
        let replaced = shared.shadow.setting.borrow().current().is_some();
        let asked = asked(terms, spec.why, Some(Arc::new(policy)));
        let version = self.ask(shared, asked.clone()).await?;
        // Who reads it finds this one, or a later one of somebody else's; this answer is about this one.
        let now = shared.shadow.setting.borrow().clone();
        let at = match now.version == version {
            true => now.at,
            false => shared.clock.now(),
        };
        let before = Setting {
            version: version - 1,
            ..Setting::default()
        };
        let written = written(&before.after(at, &asked))?;
        Ok((replaced, written.ok_or_else(|| self.unknown(shared))?))
    }

    async fn remove(self, shared: &Shared, terms: Terms, why: String) -> Result<u64, Refused> {
        self.ask(shared, asked(terms, why, None)).await
    }
}

impl ShadowNoun {
    async fn ask(&self, shared: &Shared, asked: AskedShadow) -> Result<u64, Refused> {
        let condition = asked.condition;
        let outcome = shared.turn.shadow(asked).await.map_err(define::unstored)?;
        outcome.map_err(|conflict: Conflict| {
            define::conflicting(Self::NAME, condition, conflict, || self.unknown(shared))
        })
    }
}

fn asked(terms: Terms, why: String, what: Option<Arc<PolicyText>>) -> AskedShadow {
    let Terms { who, condition } = terms;
    AskedShadow {
        who,
        why,
        what,
        condition,
    }
}

fn written(setting: &Setting) -> Result<Option<Written>, Refused> {
    let shadow = convert::shadow_policy(setting);
    let tagged = shadow.map(|shadow| define::tagged(setting.version, &shadow));
    tagged.transpose()
}

/// The policy of a body, if it can stand beside the one in force.
fn sound(shared: &Shared, spec: &ShadowSpec) -> Result<PolicyText, Refused> {
    let at = |path: &str, detail: String, what_to_do: &str| {
        let mut problem = Problem::new(Code::InvalidRequest, detail, what_to_do);
        problem.at = Some(Place {
            path: path.to_owned(),
            line: None,
            column: None,
        });
        Refused::from(problem)
    };
    check_why(&spec.why)
        .map_err(|fault| at("why", format!("why {}", fault.detail), &fault.what_to_do))?;
    let policy = replays::policy(&spec.policy)?;
    shadow::check(&policy.policy, &shared.view.load().policy)
        .map_err(|why| at("policy", why, "name regions of GET /v1/regions"))?;
    Ok(policy)
}
