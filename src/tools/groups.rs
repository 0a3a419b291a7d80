//! `sordini groups`: what `kafka-consumer-groups.sh` does.

mod delete;
mod describe;
mod list;
mod reset;
mod scope;
mod time;

use std::path::PathBuf;

use clap::Args;

use super::{Connection, Failure, console::Console, not_together, required, topic_filter};
use crate::client::Client;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    connection: Connection,
    /// List the groups
    #[arg(long)]
    list: bool,
    /// Describe groups
    #[arg(long)]
    describe: bool,
    /// Delete groups
    #[arg(long)]
    delete: bool,
    /// Delete a group's offsets of some topics
    #[arg(long)]
    delete_offsets: bool,
    /// Move groups' offsets
    #[arg(long)]
    reset_offsets: bool,
    /// Is this a regular expression that a group may subscribe to?
    #[arg(long, value_name = "regex")]
    validate_regex: Option<String>,
    /// The group; may be repeated
    #[arg(long, value_name = "id")]
    group: Vec<String>,
    /// All groups
    #[arg(long)]
    all_groups: bool,
    /// The topic, or some of its partitions as in topic:0,1; may be repeated
    #[arg(long, value_name = "topic")]
    topic: Vec<String>,
    /// All topics the group has offsets of
    #[arg(long)]
    all_topics: bool,
    /// Describe the offsets and how far behind they are (this is what --describe does anyway)
    #[arg(long)]
    offsets: bool,
    /// Describe the members
    #[arg(long)]
    members: bool,
    /// Describe the state; with --list show states, or only groups in these
    #[arg(long, value_name = "state,...", num_args = 0..=1, default_missing_value = "")]
    state: Option<String>,
    /// With --list show types, or only groups of these
    #[arg(long = "type", value_name = "type,...", num_args = 0..=1, default_missing_value = "")]
    kind: Option<String>,
    /// Describe more of it
    #[arg(long)]
    verbose: bool,
    /// How long to wait for the cluster
    #[arg(long, value_name = "ms")]
    timeout: Option<u64>,
    /// Show where the offsets would be moved
    #[arg(long)]
    dry_run: bool,
    /// Move them
    #[arg(long)]
    execute: bool,
    /// Print the new offsets as lines of a CSV file
    #[arg(long)]
    export: bool,
    /// Move to the offsets in a CSV file
    #[arg(long, value_name = "file")]
    from_file: Option<PathBuf>,
    /// Move to the first record
    #[arg(long)]
    to_earliest: bool,
    /// Move to the end
    #[arg(long)]
    to_latest: bool,
    /// Stay, or go to the end where nothing is committed
    #[arg(long)]
    to_current: bool,
    /// Move to an offset
    #[arg(long, value_name = "offset", allow_negative_numbers = true)]
    to_offset: Option<i64>,
    /// Move by so many records, back if negative
    #[arg(long, value_name = "count", allow_negative_numbers = true)]
    shift_by: Option<i64>,
    /// Move to the first record from this time on
    #[arg(long, value_name = "YYYY-MM-DDThh:mm:ss.sss")]
    to_datetime: Option<String>,
    /// Move to the first record of the last so-and-so long
    #[arg(long, value_name = "PnDTnHnMnS")]
    by_duration: Option<String>,
}

pub(super) async fn run(options: Options, console: &mut Console) -> Result<(), Failure> {
    let actions = [
        options.list,
        options.describe,
        options.delete,
        options.reset_offsets,
        options.delete_offsets,
        options.validate_regex.is_some(),
    ];
    if actions.iter().filter(|&&chosen| chosen).count() != 1 {
        return Err(Failure::Usage(
            "Command must include exactly one action: --list, --describe, --delete, --reset-offsets, --delete-offsets, \
             --validate-regex"
                .to_owned(),
        ));
    }
    if let Some(regex) = &options.validate_regex {
        return console.line(&match topic_filter::TopicFilter::new(regex, false) {
            Ok(_) => format!("The regular expression `{regex}` is valid."),
            Err(Failure::Refused(why)) => {
                let why = why.rsplit(": ").next().unwrap_or_default();
                format!("The regular expression `{regex}` is invalid: {why}.")
            }
            Err(other) => return Err(other),
        });
    }
    required(
        options.connection.bootstrap_server.as_deref(),
        "bootstrap-server",
    )?;
    check(&options, console)?;
    if options.list {
        return list::run(&options, &mut connect(&options, console).await?, console).await;
    }
    if options.describe {
        return describe::run(&options, &mut connect(&options, console).await?, console).await;
    }
    if options.reset_offsets {
        let plan = reset::Plan::new(&options)?;
        return reset::run(
            plan,
            &options,
            &mut connect(&options, console).await?,
            console,
        )
        .await;
    }
    if options.delete_offsets {
        let scopes = scope::parse(&options.topic)?;
        let client = &mut connect(&options, console).await?;
        return delete::offsets(&options.group[0], &scopes, client, console).await;
    }
    delete::groups(&options, &mut connect(&options, console).await?, console).await
}

async fn connect(options: &Options, console: &mut Console) -> Result<Client, Failure> {
    let servers = required(
        options.connection.bootstrap_server.as_deref(),
        "bootstrap-server",
    )?;
    let mut settings = options.connection.settings("sordini-groups")?;
    if let Some(ms) = options.timeout {
        settings.api_timeout = std::time::Duration::from_millis(ms);
    }
    super::connect(servers, settings, console).await
}

/// What does not go together, in Kafka's words.
fn check(options: &Options, console: &mut Console) -> Result<(), Failure> {
    let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
    let has_group = !options.group.is_empty();
    if options.list {
        for (name, given) in [
            ("group", has_group),
            ("topic", !options.topic.is_empty()),
            ("offsets", options.offsets),
            ("members", options.members),
        ] {
            not_together(("list", true), (name, given))?;
        }
    }
    if has_group && options.all_groups {
        not_together(("group", true), ("all-groups", true))?;
    }
    let action = if options.describe {
        "describe"
    } else if options.delete {
        "delete"
    } else {
        "reset-offsets"
    };
    if options.delete_offsets {
        if !has_group || options.topic.is_empty() {
            return usage("Option [delete-offsets] takes the following options: [group], [topic]");
        }
        if 1 < options.group.len() {
            return usage("Found multiple arguments for option group, but one was expected");
        }
        return Ok(());
    }
    if options.reset_offsets {
        if options.dry_run && options.execute {
            return usage("Option [reset-offsets] only accepts one of [execute] and [dry-run]");
        }
        if !options.dry_run && !options.execute {
            console.complain(
                "WARN: No action will be performed as the --execute option is missing. In version 5.0, this command will \
                 require either --dry-run or --execute to be specified. You should add the --dry-run option explicitly \
                 if you are scripting this command and want to keep the current default behavior without prompting.",
            );
        }
    }
    if !options.list && !has_group && !options.all_groups {
        return Err(Failure::Usage(format!(
            "Option [{action}] takes one of these options: [group], [all-groups]"
        )));
    }
    let views = [options.members, options.offsets, options.state.is_some()];
    if options.describe && 1 < views.iter().filter(|&&chosen| chosen).count() {
        return usage(
            "Option [describe] takes at most one of these options: [members], [offsets], [state]",
        );
    }
    Ok(())
}

/// The groups that are meant.
async fn chosen(options: &Options, client: &mut Client) -> Result<Vec<String>, Failure> {
    if !options.all_groups {
        let mut groups = options.group.clone();
        groups.sort_unstable();
        groups.dedup();
        return Ok(groups);
    }
    let all = client.list_groups(&[], &[]).await?;
    let consumers = all.into_iter().filter(list::is_consumer_group);
    Ok(consumers.map(|group| group.group_id.to_string()).collect())
}
