//! `paybus publish`: publishes commands from a shell.

pub mod command;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use jiff::Timestamp;
use regex::Regex;
use serde_json::{Value, json};
use uuid::Uuid;

use self::command::{CommandArguments, Made};
use super::exit::{Exit, Failure};
use super::line::EventSummary;
use super::output::{Output, Style};
use super::tame::tame;
use super::watch::{answer, read_duration};
use crate::bus::client::{Client, NewCommand, Watch};
use crate::bus::publish::verdict::Refused;
use crate::config::Settings;
use crate::payment::command::CommandType;
use crate::plural::counted;
use crate::wiring::bus_settings;

/// How many commands are published at once.
const BATCH: u64 = 256;

const AFTER_HELP: &str = "\
Examples:
  paybus publish payment.create --total 12.50 --currency USD --process '{}' --reply
  paybus publish payment.refund --payment 0192f0c1-7c5e-7000-8000-0123456789ab --amount 2.50
  paybus publish payment.create --data @order.json --count 1000
  paybus publish payment.resolve --payment 0192f0c1-7c5e-7000-8000-0123456789ab --variant cards \\
      --operation 5f0c7a52-1111-5000-8000-0123456789ab --outcome approved \\
      --evidence 'seen in the dashboard'
  paybus publish payment.retry --payment 0192f0c1-7c5e-7000-8000-0123456789ab --variant cards \\
      --operation 5f0c7a52-1111-5000-8000-0123456789ab --reason 'the gateway is back'

`sent` means that the broker has stored the command; to see its result, use --reply or
`paybus watch`. The command is sent as the user in amqp.url.";

/// Publish a command.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct PublishArguments {
    /// Wait for the final answer on a reply queue; exit with 1 unless the command succeeded.
    #[arg(long)]
    reply: bool,
    /// With --reply, how long to wait for the answers.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = read_duration)]
    timeout: Duration,
    /// Number of commands to publish; each payment.create creates another payment.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Print one JSON object per command and, with --reply, one per answer.
    #[arg(long)]
    json: bool,
    // Last: the heading of its fields holds for all that follows.
    #[command(flatten)]
    command: CommandArguments,
}

impl PublishArguments {
    /// One command, whose answer is awaited.
    pub fn answered(command: CommandArguments, timeout: Duration, json: bool) -> PublishArguments {
        PublishArguments { reply: true, timeout, count: 1, json, command }
    }
}

pub async fn run(arguments: PublishArguments, settings: &Settings) -> Result<Exit, Failure> {
    arguments.command.check(arguments.count)?;
    let given = arguments.command.data.as_deref().map(read_data).transpose()?;
    let data = arguments.command.data(given.as_deref())?;
    let client = Client::connect(&bus_settings(settings), "publish").await?;
    let mut replies = match arguments.reply {
        true => Some(Replies::open(&client, settings).await?),
        false => None,
    };
    let mut exit = Exit::Done;
    let mut left = arguments.count;
    while left > 0 {
        let size = left.min(BATCH);
        left -= size;
        let fresh = || arguments.command.make(&data, Timestamp::now(), Uuid::now_v7);
        let batch: Vec<Made> = (0..size).map(|_| fresh()).collect();
        exit = worse(exit, publish(&client, &arguments, batch, replies.as_mut()).await?);
    }
    if let Some(replies) = replies {
        exit = worse(exit, replies.wait(&arguments).await?);
    }
    client.close().await;
    Ok(exit)
}

fn worse(one: Exit, other: Exit) -> Exit {
    if one == Exit::Done { other } else { one }
}

/// `@FILE`, `-` for standard input, or the text itself.
fn read_data(text: &str) -> Result<String, Failure> {
    let read = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("--data {text}: {error}")),
        None if text == "-" => std::io::read_to_string(std::io::stdin()).map_err(|error| format!("--data -: {error}")),
        None => Ok(text.to_owned()),
    };
    read.map_err(Failure::usage)
}

async fn publish(
    client: &Client,
    arguments: &PublishArguments,
    batch: Vec<Made>,
    mut replies: Option<&mut Replies>,
) -> Result<Exit, Failure> {
    let reply_to = replies.as_ref().map(|replies| replies.queue.clone());
    let commands = batch.iter().map(|made| NewCommand {
        routing_key: made.routing_key.clone(),
        message_id: made.id.clone(),
        body: Bytes::from(made.event.to_string()),
        reply_to: reply_to.clone(),
        correlation_id: Some(made.id.clone()),
        name_user: true,
    });
    let sent = client.publish(commands.collect()).await?;
    let mut exit = Exit::Done;
    for (made, sent) in batch.into_iter().zip(sent) {
        print_result(arguments, &made, &sent)?;
        match (sent, replies.as_deref_mut()) {
            (Err(_), _) => exit = Exit::Failed,
            (Ok(()), Some(replies)) => replies.expect(made),
            (Ok(()), None) => {}
        }
    }
    Ok(exit)
}

fn print_result(arguments: &PublishArguments, made: &Made, sent: &Result<(), Refused>) -> Result<(), Failure> {
    let output = Output::new();
    let refused = sent.as_ref().err().map(|Refused(reason)| tame(reason));
    if arguments.json {
        return output.json(&json!({
            "payment": made.payment,
            "id": made.id,
            "routing_key": made.routing_key,
            "confirmed": refused.is_none(),
            "reason": refused,
        }));
    }
    let payment = made.payment.map_or_else(|| "-".to_owned(), |payment| payment.to_string());
    let (word, style) = if refused.is_none() { ("sent", Style::Good) } else { ("returned", Style::Bad) };
    let word = output.column(style, word, 9);
    Ok(output.line(&format!("{payment}  {word}  {}  {}", made.routing_key, refused.unwrap_or_default()))?)
}

/// A reply queue of this process, and the commands without a final answer.
struct Replies {
    queue: String,
    watch: Watch,
    open: HashMap<String, Made>,
}

impl Replies {
    async fn open(client: &Client, settings: &Settings) -> Result<Replies, Failure> {
        let queue = format!("reply.paybus-cli.{}", Uuid::new_v4());
        let allowed = Regex::new(&settings.amqp.reply_to)?;
        if !allowed.is_match(&queue) {
            return Err(Failure::usage(format!("--reply: amqp.reply_to does not allow the reply queue {queue}")));
        }
        let watch = client.subscribe_queue(&queue).await?;
        Ok(Replies { queue, watch, open: HashMap::new() })
    }

    fn expect(&mut self, made: Made) {
        self.open.insert(made.id.clone(), made);
    }

    async fn wait(mut self, arguments: &PublishArguments) -> Result<Exit, Failure> {
        match tokio::time::timeout(arguments.timeout, self.take_all(arguments)).await {
            Ok(ended) => ended,
            Err(_) => {
                let commands = counted(self.open.len(), "command");
                let seconds = arguments.timeout.as_secs_f32();
                Err(Failure::new(Exit::Failed, format!("no final answer to {commands} within {seconds} s")))
            }
        }
    }

    async fn take_all(&mut self, arguments: &PublishArguments) -> Result<Exit, Failure> {
        let output = Output::new();
        let mut exit = Exit::Done;
        while !self.open.is_empty() {
            let Some(reply) = self.watch.next().await? else {
                return Err(Failure::connection_lost());
            };
            let event: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
            let known = reply.properties.correlation_id.and_then(|id| self.open.remove(&id));
            // A redelivery may answer twice.
            let Some(made) = known else { continue };
            if arguments.json {
                output.json(&event)?;
            } else {
                output.line(&EventSummary::read(&event).line(output, true))?;
            }
            exit = worse(exit, outcome(&event, &made));
        }
        Ok(exit)
    }
}

/// A `command.status` is answered with the event of another command: any answer is a success.
fn outcome(event: &Value, made: &Made) -> Exit {
    let is_question = made.event["type"] == CommandType::Status.as_str();
    answer(event, &made.id).unwrap_or(if is_question { Exit::Done } else { Exit::Failed })
}
