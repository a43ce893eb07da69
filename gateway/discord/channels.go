package discord

import (
	"slices"

	"github.com/bwmarrin/discordgo"

	"parley.internal/gateway/gap"
)

// sessionStarted handles READY, the start of a new session. Earlier messages may be missed, so every channel needs a
// backfill: direct conversations now, and a guild's channels when Discord sends the guild.
func (in *ingestQueue) sessionStarted(data []byte) {
	bot, err := readyUser(data)
	if err != nil {
		in.service.log.Error("invalid READY from Discord", "error", err)
		bot = new(discordgo.User)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.converter.bot, in.converter.botName, in.converter.botUsername = bot.ID, bot.DisplayName(), bot.Username
	for _, q := range in.channels {
		if q.readable = q.guild == ""; q.readable {
			q.needsBackfill = true
			in.startWorker(q)
		}
	}
}

// guildAppeared handles a guild sent at the start of a session or after an outage of the guild. It sets the point from
// which each channel is read.
func (in *ingestQueue) guildAppeared(g *guild) {
	in.mu.Lock()
	defer in.mu.Unlock()
	since, known := in.guildsSince[g.ID]
	idleSince := in.lease.IdleSince(gap.Chat) // end of the last coverage; zero if no instance ever held the lease
	seen := map[string]bool{}
	for _, c := range slices.Concat(g.Channels, g.Threads) {
		id, ok := parseSnowflake(c.ID)
		if !ok || !holdsMessages(c.Type) {
			continue
		}
		seen[c.ID] = true
		newest, _ := parseSnowflake(c.LastMessageID)
		q := in.channels[c.ID]
		switch {
		case q != nil:
			q.needsBackfill = q.needsBackfill || newest > q.last
		case known && id.time().After(since):
			// the channel was created during an outage: read it from the start
			q = &channelQueue{channel: c.ID, guild: g.ID, last: id - 1, needsBackfill: newest > 0}
		case !idleSince.IsZero():
			// an earlier lease holder crashed before it wrote the watermark
			q = &channelQueue{channel: c.ID, guild: g.ID, last: max(id-1, min(newest, max(snowflakeAt(idleSince), snowflakeAt(g.Joined))))}
			q.needsBackfill = newest > q.last
		default:
			q = &channelQueue{channel: c.ID, guild: g.ID, last: max(newest, id)}
		}
		in.channels[c.ID] = q
		q.readable = true
		in.startWorker(q)
	}
	if !known {
		in.guildsSince[g.ID] = in.service.now()
	}
	for _, q := range in.channels {
		if q.guild == g.ID && !seen[q.channel] && q.channel != g.ID {
			q.readable, q.needsBackfill = true, true // for example an archived thread
			in.startWorker(q)
		}
	}
}

// channelOpened handles a channel just created, or just made visible to the bot.
func (in *ingestQueue) channelOpened(c *discordgo.Channel) {
	id, ok := parseSnowflake(c.ID)
	if !ok {
		return
	}
	newest, _ := parseSnowflake(c.LastMessageID)
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.channels[c.ID] == nil {
		in.channels[c.ID] = &channelQueue{channel: c.ID, guild: c.GuildID, last: max(newest, id) - 1, readable: true}
	}
}
