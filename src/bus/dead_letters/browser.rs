//! The dead-letter browser of the command line: list, replay, drop.
//!
//! Each operation fetches one letter after the other and leaves those it does not take: everything unacknowledged goes
//! back to its place when the connection closes. While one operation runs, another one sees an empty queue.

use std::time::Duration;

use lapin::Channel;
use lapin::options::BasicNackOptions;

use super::letter::{DeadLetter, Rights};
use super::mentions::Person;
use crate::bus::connection::{Connection, connect_to_read};
use crate::bus::consume::consumer::fetch;
use crate::bus::consume::delivery::Delivery;
use crate::bus::publish::batch::{Message, publish};
use crate::bus::publish::channel::open;
use crate::bus::publish::verdict::{Refused, Sent};
use crate::bus::topology::{Names, queue_length};
use crate::bus::{BusError, BusSettings, bounded, describe};

/// Selects dead letters. Every condition that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct DeadFilter {
    /// With this id.
    pub id: Option<String>,
    /// With this code.
    pub code: Option<String>,
    /// From this queue.
    pub queue: Option<String>,
    /// Published with this routing key, or with one that continues it after a dot.
    pub routing_key: Option<String>,
    /// About this person.
    pub person: Option<Person>,
}

impl DeadFilter {
    fn matches(&self, letter: &DeadLetter) -> bool {
        let same = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let under = self.routing_key.as_deref().is_none_or(|wanted| {
            letter.routing_key.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        let named = same(&self.id, &letter.id) && same(&self.code, &letter.code) && same(&self.queue, &letter.queue);
        named && under && self.person.as_ref().is_none_or(|person| person.is_in(letter))
    }
}

/// The result of sending a dead letter again.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// The dead letter.
    pub letter: DeadLetter,
    /// Why it was refused. In this case it is still among the dead letters.
    pub refused: Option<String>,
}

/// Returns the dead letters that match, oldest first, at most `limit`. They stay where they are.
///
/// # Errors
/// The broker cannot be reached, or there is no queue of dead letters.
pub async fn list(settings: &BusSettings, filter: &DeadFilter, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
    let mut browser = DeadLetterBrowser::open(settings).await?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some((letter, _)) = browser.next(filter).await?
    {
        found.push(letter);
    }
    browser.close().await?;
    Ok(found)
}

/// Sends the dead letters that match to the commands exchange again, at most `limit`. Each is removed once the broker
/// has the new copy. One that cannot be understood this time either, or is not authorized, comes back.
///
/// # Errors
/// The broker cannot be reached, or is lost midway: what was sent by then stays sent.
pub async fn replay(
    settings: &BusSettings,
    filter: &DeadFilter,
    limit: usize,
    rights: Rights,
) -> Result<Vec<Replayed>, BusError> {
    let mut browser = DeadLetterBrowser::open(settings).await?;
    let channel = open(&browser.connection).await?;
    let mut replayed = Vec::new();
    while replayed.len() < limit
        && let Some((letter, delivery)) = browser.next(filter).await?
    {
        let refused = browser.send_again(&channel, &letter, settings, rights).await?;
        if refused.is_none() {
            delivery.acker.ack().await;
        }
        replayed.push(Replayed { letter, refused });
    }
    browser.close().await?;
    Ok(replayed)
}

/// Deletes the dead letters that match, at most `limit`, and returns them.
///
/// # Errors
/// The broker cannot be reached, or is lost midway: what was deleted by then stays deleted.
pub async fn drop_matching(
    settings: &BusSettings,
    filter: &DeadFilter,
    limit: usize,
) -> Result<Vec<DeadLetter>, BusError> {
    let mut browser = DeadLetterBrowser::open(settings).await?;
    let mut dropped = Vec::new();
    while dropped.len() < limit
        && let Some((letter, delivery)) = browser.next(filter).await?
    {
        if !delivery.acker.ack().await {
            return Err(BusError::Closed);
        }
        dropped.push(letter);
    }
    browser.close().await?;
    Ok(dropped)
}

/// One pass through the queue of dead letters. What was fetched and not acknowledged goes back to its place at the end.
struct DeadLetterBrowser {
    connection: Connection,
    channel: Channel,
    names: Names,
    /// How many letters are left of those that were there at the start: a replayed one that comes back is not met
    /// again.
    left: u32,
}

impl DeadLetterBrowser {
    async fn open(settings: &BusSettings) -> Result<DeadLetterBrowser, BusError> {
        let names = Names::new(&settings.prefix);
        let connection = connect_to_read(settings, "dead letters").await?;
        let left = queue_length(&connection, &names.dead()).await?;
        let channel = connection.channel().await?;
        Ok(DeadLetterBrowser { connection, channel, names, left })
    }

    async fn next(&mut self, filter: &DeadFilter) -> Result<Option<(DeadLetter, Delivery)>, BusError> {
        let queue = self.names.dead().into();
        while self.left > 0 {
            self.left -= 1;
            let Some(mut delivery) = fetch(&self.channel, &queue, self.connection.timeout()).await? else {
                return Ok(None);
            };
            let body = std::mem::take(&mut delivery.body);
            let letter = DeadLetter::read(delivery.properties.clone(), delivery.routing_key.clone(), body);
            if filter.matches(&letter) {
                return Ok(Some((letter, delivery)));
            }
        }
        Ok(None)
    }

    /// Sends a dead letter again. Returns the reason if that cannot be done, so that the others need not wait for it.
    async fn send_again(
        &self,
        channel: &Channel,
        letter: &DeadLetter,
        settings: &BusSettings,
        rights: Rights,
    ) -> Result<Option<String>, BusError> {
        if letter.unread_size().is_some() {
            return Ok(Some(
                "its body is too large to read; drop it and have the publisher send a smaller one".to_owned(),
            ));
        }
        match letter.revived(&self.names, settings.user().as_deref(), rights) {
            Ok(message) => self.send(channel, &message, settings.confirm_timeout).await,
            // Its headers may contain values that no message can have.
            Err(error) => Ok(Some(describe(&error))),
        }
    }

    /// Sends a message; returns why the broker refused it, if it did.
    async fn send(&self, channel: &Channel, message: &Message, timeout: Duration) -> Result<Option<String>, BusError> {
        let report = publish(&self.connection, channel, std::iter::once(message), timeout).await;
        match report.sent.into_iter().next().and_then(Sent::only_try) {
            Some(Ok(())) => Ok(None),
            Some(Err(Refused(reason))) => Ok(Some(reason)),
            None => Err(BusError::Closed),
        }
    }

    /// Puts back what was not taken. Closing alone would do that too, but some time later: the next operation would see
    /// an empty queue.
    async fn close(self) -> Result<(), BusError> {
        let all = BasicNackOptions { multiple: true, requeue: true };
        let timeout = self.connection.timeout();
        bounded("returning dead letters to their queue", timeout, self.channel.basic_nack(0, all)).await?;
        bounded("closing a channel", timeout, self.channel.close(200, "done".into())).await?;
        self.connection.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::consume::delivery::Properties;

    #[test]
    fn a_filter_takes_a_routing_key_by_whole_words() {
        let letter = DeadLetter::read(Properties::default(), "cards.payment.create".to_owned(), Vec::new());
        let check = |key: &str, matches: bool| {
            let filter = DeadFilter { routing_key: Some(key.to_owned()), ..DeadFilter::default() };
            assert_eq!(filter.matches(&letter), matches, "{key}");
        };
        check("cards", true);
        check("cards.payment.create", true);
        check("card", false);
    }
}
