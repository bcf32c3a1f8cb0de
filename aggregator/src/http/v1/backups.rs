//! Backups of the store.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use leeward_common::api::{
    problem::{Code, Problem},
    v1::{Backup, Backups, NewBackup, check_why},
};

use crate::{
    backup,
    config::Role,
    http::{App, answer::answer, auth, body::Json, error::Refused},
    turn::Noted,
};

/// Backups kept at most.
const MAX_KEPT: u32 = 100;

/// The backups that are there, oldest first.
#[utoipa::path(
    get, path = "/v1/backups", tag = "service",
    responses(
        (status = 200, description = "The backups", body = Backups),
        (status = 503, description = "The directory cannot be read now", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn backups(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let backups = Arc::clone(&app.shared.backups);
    let listed = tokio::task::spawn_blocking(move || backups.list()).await;
    let listed = done(listed)?;
    let backups = listed.iter().map(told).collect();
    answer(&headers, &Backups { backups })
}

/// Makes a backup: a copy of everything as it is now, in `backups` of the data directory. It shares files with the store, so
/// copy it to another machine. It is in the audit log, and that entry in the backup.
#[utoipa::path(
    post, path = "/v1/backups", tag = "service",
    request_body = NewBackup,
    security(("bearer" = [])),
    responses(
        (status = 201, description = "It is made", body = Backup),
        (status = 400, description = "The body cannot be read; says where", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that nobody knows", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token may not do this", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "It makes no sense", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It cannot be made now, or another one is being made", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(in crate::http) async fn new_backup(
    State(app): State<App>,
    headers: HeaderMap,
    // The token is looked at before the body is read.
    body: Request,
) -> Result<Response, Refused> {
    let who = auth::holder(&app.shared, &headers, Role::Operator, "POST /v1/backups").await?;
    let Json(NewBackup { why, keep }) =
        <Json<NewBackup> as axum::extract::FromRequest<()>>::from_request(body, &()).await?;
    if !(1..=MAX_KEPT).contains(&keep) {
        let detail = format!("keep is {keep}");
        let what_to_do = format!("keep 1 to {MAX_KEPT} backups, this one among them");
        return Err(Refused::new(Code::InvalidRequest, detail, what_to_do));
    }
    check_why(&why).map_err(|fault| {
        Refused::new(
            Code::InvalidRequest,
            fault.to_string(),
            "say why in a line of text",
        )
    })?;
    let backups = Arc::clone(&app.shared.backups);
    let place = Arc::clone(&backups.place)
        .try_acquire_owned()
        .map_err(|_| unavailable("another backup is being made".to_owned()))?;
    let noted = Noted {
        who: who.name,
        why,
        what: "backup",
        about: "store".to_owned(),
        detail: format!("keeps {keep}"),
    };
    let done_noting = app.shared.turn.noted(noted).await;
    done_noting.map_err(|error| unavailable(error.to_string()))?;
    let now = app.shared.clock.now();
    let made = tokio::task::spawn_blocking(move || {
        let _place = place;
        backups.make(now, keep as usize)
    });
    let made = done(made.await)?;
    Ok((
        StatusCode::CREATED,
        answer(&HeaderMap::new(), &told(&made))?,
    )
        .into_response())
}

fn done<T>(
    outcome: Result<Result<T, backup::BackupError>, tokio::task::JoinError>,
) -> Result<T, Refused> {
    match outcome {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(unavailable(error.to_string())),
        Err(_) => Err(unavailable("it was cut off".to_owned())),
    }
}

fn unavailable(detail: String) -> Refused {
    Refused::new(
        Code::Unavailable,
        detail,
        "try again later; /readyz says how the store fares",
    )
}

fn told(backup: &backup::Backup) -> Backup {
    Backup {
        name: backup.name.clone(),
        path: backup.path.display().to_string(),
        made_at: backup.made_at.into(),
        bytes: backup.bytes,
    }
}
