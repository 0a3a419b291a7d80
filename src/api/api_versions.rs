//! ApiVersions (key 18), v0-v5: which APIs this broker serves, in which versions, and the cluster's
//! features. It is the first request of every client.
//!
//! - A request of a version above ours is answered in the form of v0 with UNSUPPORTED_VERSION and the
//!   range of this one key, and the connection lives on: the client asks again in a version we share.
//! - A client that gives its software's name must give a well-formed one (KIP-511), because it ends up in
//!   the names of metrics.
//! - A client may say which broker of which cluster it means to talk to (KIP-1242). If that is somebody
//!   else it is sent back to its bootstrap servers.
//! - A refusal carries neither keys nor features.
//!
//! Versions: v3 the client's software, features as tagged fields (KIP-584); v4 also features that may be
//! at level 0, which clients of v3 take for an error (KAFKA-17011); v5 whom the client means.

use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
    protocol::StrBytes,
};
use protocol::{
    error::ErrorCode,
    messages::ApiVersionsRequest,
    versions::{self, Range},
};

use crate::{broker::Broker, features, server::Context};

/// First version with the name and version of the client's software, and with features.
const CLIENT_SOFTWARE: i16 = 3;

/// A client that does not say which broker it means.
const NO_NODE: i32 = -1;

/// First version that shows features whose lowest level is 0.
const FEATURES_FROM_ZERO: i16 = 4;

pub(crate) fn handle(
    broker: &Broker,
    ctx: &Context,
    req: ApiVersionsRequest,
) -> ApiVersionsResponse {
    let own = versions::served(ApiKey::ApiVersions);
    if !own.is_some_and(|range| range.contains(ctx.version)) {
        return refusal(ErrorCode::UnsupportedVersion).with_api_keys(
            own.map(|range| row(ApiKey::ApiVersions, range))
                .into_iter()
                .collect(),
        );
    }
    let named = [&req.client_software_name, &req.client_software_version];
    if CLIENT_SOFTWARE <= ctx.version && !named.into_iter().all(|name| is_well_formed(name)) {
        return refusal(ErrorCode::InvalidRequest);
    }
    if let Err(code) = check_destination(broker, &req) {
        return refusal(code);
    }

    let response = ApiVersionsResponse::default().with_api_keys(
        versions::advertised()
            .filter(|(key, _)| ctx.role.serves(*key))
            .map(|(key, range)| row(key, range))
            .collect(),
    );
    if ctx.version < CLIENT_SOFTWARE {
        return response;
    }
    let image = broker.image();
    let supported = image
        .brokers
        .get(&broker.node_id())
        .map(|broker| &broker.features);
    response
        .with_supported_features(
            supported
                .into_iter()
                .flatten()
                .filter(|(name, _)| features::works(name))
                .filter(|(_, (min, _))| FEATURES_FROM_ZERO <= ctx.version || 0 < *min)
                .map(|(name, &(min, max))| {
                    SupportedFeatureKey::default()
                        .with_name(StrBytes::from(name.clone()))
                        .with_min_version(min)
                        .with_max_version(max)
                })
                .collect(),
        )
        .with_finalized_features_epoch(image.offset)
        .with_finalized_features(
            image
                .features
                .iter()
                .filter(|(name, _)| features::works(name))
                .map(|(name, &level)| {
                    FinalizedFeatureKey::default()
                        .with_name(StrBytes::from(name.clone()))
                        .with_max_version_level(level)
                        .with_min_version_level(level)
                })
                .collect(),
        )
}

/// Is it us whom the client means, if it says so?
fn check_destination(broker: &Broker, req: &ApiVersionsRequest) -> Result<(), ErrorCode> {
    match (&req.cluster_id, req.node_id) {
        (None, NO_NODE) => Ok(()),
        // One says nothing without the other.
        (None, _) | (_, NO_NODE) => Err(ErrorCode::InvalidRequest),
        (Some(cluster), node)
            if **cluster == *broker.image().cluster_id && node == broker.node_id() =>
        {
            Ok(())
        }
        (Some(_), _) => Err(ErrorCode::RebootstrapRequired),
    }
}

fn refusal(code: ErrorCode) -> ApiVersionsResponse {
    ApiVersionsResponse::default().with_error_code(code.code())
}

fn row(key: ApiKey, range: Range) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(key as i16)
        .with_min_version(range.min)
        .with_max_version(range.max)
}

/// Letters and digits, and between them also dots and dashes.
fn is_well_formed(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    match name.as_bytes() {
        [only] => only.is_ascii_alphanumeric(),
        [first, middle @ .., last] => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && middle.iter().all(|&byte| inner(byte))
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_judged_as_a_real_broker_judges_them() {
        for name in ["a", "apache-kafka-java", "4.4.0", "a.b-c", "0--.0"] {
            assert!(is_well_formed(name), "{name:?}");
        }
        for name in ["", "-", "-a", "a-", "a.", "a b", "a_b", "é", "aé", "a\n"] {
            assert!(!is_well_formed(name), "{name:?}");
        }
    }
}
