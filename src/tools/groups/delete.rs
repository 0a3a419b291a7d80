//! `--delete` and `--delete-offsets`.

use kafka_protocol::messages::{
    DeleteGroupsRequest, GroupId, OffsetDeleteRequest,
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
};
use protocol::error::ErrorCode;

use super::{Options, chosen, scope::Scope};
use crate::{
    client::{Client, Error, refused, topic_name},
    tools::{
        Failure,
        console::Console,
        table::{self, fixed, growing},
    },
};

/// Deletes whole groups, each for itself: one that cannot be deleted does not save the others.
pub(super) async fn groups(
    options: &Options,
    client: &mut Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let (mut deleted, mut kept) = (Vec::new(), Vec::new());
    for id in chosen(options, client).await? {
        let request =
            DeleteGroupsRequest::default().with_groups_names(vec![GroupId(id.clone().into())]);
        let answer = client
            .in_group(&id, 2, &request, |response| {
                response
                    .results
                    .first()
                    .map_or(0, |result| result.error_code)
            })
            .await?;
        let code = answer.results.first().map_or(0, |result| result.error_code);
        match refused(code, None) {
            Ok(()) => deleted.push(format!("'{id}'")),
            Err(refusal) => kept.push(format!(
                "* Group '{id}' could not be deleted due to: {}",
                refusal.with_exception()
            )),
        }
    }
    if kept.is_empty() {
        return console.line(&format!(
            "Deletion of requested consumer groups ({}) was successful.",
            deleted.join(", ")
        ));
    }
    console.line("\nError: Deletion of some consumer groups failed:")?;
    for line in &kept {
        console.line(line)?;
    }
    if !deleted.is_empty() {
        console.line(&format!(
            "\nThese consumer groups were deleted successfully: {}",
            deleted.join(", ")
        ))?;
    }
    Ok(())
}

/// Deletes what a group has committed for some topics.
pub(super) async fn offsets(
    group: &str,
    scopes: &[Scope],
    client: &mut Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut topics = Vec::new();
    for scope in scopes {
        // The coordinator judges partitions that are named; all of a topic's can only be had from the topic.
        let partitions = match scope.partitions.is_empty() {
            false => scope.partitions.clone(),
            true => match client.partitions(&scope.topic).await {
                Ok(partitions) => partitions,
                Err(Error::Refused(refusal)) => {
                    let status = format!("Error: {}", refusal.with_exception());
                    rows.push(vec![scope.topic.clone(), "-".to_owned(), status]);
                    continue;
                }
                Err(err) => return Err(err.into()),
            },
        };
        let partition = |index| OffsetDeleteRequestPartition::default().with_partition_index(index);
        topics.push(
            OffsetDeleteRequestTopic::default()
                .with_name(topic_name(&scope.topic))
                .with_partitions(partitions.into_iter().map(partition).collect()),
        );
    }
    let request = OffsetDeleteRequest::default()
        .with_group_id(GroupId(group.to_owned().into()))
        .with_topics(topics);
    let response = client
        .in_group(group, 0, &request, |response| response.error_code)
        .await?;
    let whole = refused(response.error_code, None).err();
    let mut partial = false;
    match &whole {
        Some(refusal) => {
            for topic in &request.topics {
                for partition in &topic.partitions {
                    let status = format!("Error: {}", refusal.with_exception());
                    let index = partition.partition_index.to_string();
                    rows.push(vec![topic.name.to_string(), index, status]);
                }
            }
        }
        None => {
            for topic in &response.topics {
                for partition in &topic.partitions {
                    let status = match refused(partition.error_code, None) {
                        Ok(()) => "Successful".to_owned(),
                        Err(refusal) => format!("Error: {}", refusal.with_exception()),
                    };
                    partial |= partition.error_code != 0;
                    let index = partition.partition_index.to_string();
                    rows.push(vec![topic.name.to_string(), index, status]);
                }
            }
        }
    }
    console.line(&match &whole {
        Some(refusal) if refusal.code == ErrorCode::GroupIdNotFound => {
            "\nError: The group id does not exist.".to_owned()
        }
        Some(refusal) => format!("\nError: {refusal}"),
        None if partial => {
            "\nError: Encountered some partition-level error, see the follow-up details.".to_owned()
        }
        None => format!("Request succeeded for deleting offsets from group {group}."),
    })?;
    rows.sort();
    let columns = [
        growing("TOPIC", 15),
        fixed("PARTITION", 10),
        fixed("STATUS", 15),
    ];
    console.line("")?;
    for line in table::lines(&columns, &rows) {
        console.line(&line)?;
    }
    Ok(())
}
