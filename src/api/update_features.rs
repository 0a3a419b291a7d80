//! UpdateFeatures (key 57), v0-v2: agree on other levels of the cluster's features (KIP-584).
//!
//! All updates of a request are carried out or none. The first that is refused is the answer.
//!
//! Versions: v0 says "downgrade" with a flag, v1 how risky it may be, and `validate_only`; v2 has no
//! results per feature any more.

use kafka_protocol::messages::{
    UpdateFeaturesRequest, UpdateFeaturesResponse, update_features_request::FeatureUpdateKey,
    update_features_response::UpdatableFeatureResult,
};
use replication::{
    controller::features::{Direction, Update},
    error::{Reason, Refusal},
};

use super::error::Error;
use crate::{broker::Broker, server::Context};

/// First version that says what kind of downgrade is meant.
const UPGRADE_TYPES: i16 = 1;

/// Last version with a result for each feature.
const RESULTS_LAST: i16 = 1;

/// A real broker sends the name of the code as the message of every success.
const SUCCESS: &str = "NONE";

pub(crate) async fn handle(
    broker: &Broker,
    ctx: &Context,
    req: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    if let Err(err) = update(broker, ctx, &req).await {
        return UpdateFeaturesResponse::default()
            .with_error_code(err.code().code())
            .with_error_message(err.message().map(Into::into));
    }
    let response = UpdateFeaturesResponse::default().with_error_message(None);
    if RESULTS_LAST < ctx.version {
        return response;
    }
    let results = req.feature_updates.into_iter().map(|update| {
        UpdatableFeatureResult::default()
            .with_feature(update.feature)
            .with_error_message(Some(SUCCESS.into()))
    });
    response.with_results(results.collect())
}

async fn update(broker: &Broker, ctx: &Context, req: &UpdateFeaturesRequest) -> Result<(), Error> {
    let updates: Result<Vec<Update>, Refusal> = req
        .feature_updates
        .iter()
        .map(|update| understood(ctx, update))
        .collect();
    let updated = broker
        .controller()
        .update_features(updates.map_err(failed)?, req.validate_only);
    ctx.within(req.timeout_ms, updated)
        .await??
        .map_err(|refusal| failed(refusal).into())
}

fn understood(ctx: &Context, update: &FeatureUpdateKey) -> Result<Update, Refusal> {
    let direction = match (ctx.version, update.upgrade_type, update.allow_downgrade) {
        (..UPGRADE_TYPES, _, false) | (_, 1, _) => Direction::Upgrade,
        (..UPGRADE_TYPES, _, true) | (_, 2, _) => Direction::SafeDowngrade,
        (_, 3, _) => Direction::UnsafeDowngrade,
        _ => {
            let why = format!(
                "Invalid update version {} for feature {}. \
                 The controller does not support the given upgrade type.",
                update.max_version_level, &*update.feature
            );
            return Err(Refusal::new(Reason::InvalidUpdateVersion, why));
        }
    };
    Ok(Update {
        feature: update.feature.to_string(),
        level: update.max_version_level,
        direction,
    })
}

fn failed(refusal: Refusal) -> Refusal {
    let why = refusal.message.unwrap_or_default();
    Refusal::new(
        refusal.reason,
        format!(
            "The update failed for all features since the following feature had an error: {why}"
        ),
    )
}
