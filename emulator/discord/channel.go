package discord

import (
	"fmt"
	"slices"
	"strconv"
)

// ChannelType is the type of a channel.
// https://discord.com/developers/docs/resources/channel#channel-object-channel-types
type ChannelType int

// Types of channels. Only text channels, announcement channels and DMs have messages.
const (
	TextChannel         ChannelType = 0
	DMChannel           ChannelType = 1
	VoiceChannel        ChannelType = 2
	CategoryChannel     ChannelType = 4
	AnnouncementChannel ChannelType = 5
)

// Channel is a channel of a guild, or the direct messages of two users.
// https://discord.com/developers/docs/resources/channel
type Channel struct {
	// ID is a snowflake. AddChannel fills in an empty ID.
	ID string
	// GuildID is empty for direct messages.
	GuildID string
	Name    string
	Type    ChannelType
	// Overwrites change the permissions of roles and members in the channel.
	Overwrites []Overwrite
	// UserIDs are the two users of direct messages.
	UserIDs []string
}

type channel struct {
	Channel
	guild    *guild     // nil for direct messages
	users    []*account // for direct messages
	messages []*message
	byID     map[string]*message
}

// AddChannel makes a channel, or changes the channel with the same id. Bots with access to the channel get an event.
func (s *Server) AddChannel(c Channel) (Channel, error) {
	if c.Name == "" {
		return Channel{}, fmt.Errorf("discord: a channel needs a name")
	}
	if c.Type == DMChannel {
		return Channel{}, fmt.Errorf("discord: channel %s: DM opens direct messages", c.Name)
	}
	s.lock()
	defer s.unlock()
	g, err := s.guild(c.GuildID)
	if err != nil {
		return Channel{}, err
	}
	if c.ID, err = s.idFor(c.ID, "channel "+c.Name); err != nil {
		return Channel{}, err
	}
	c.UserIDs = nil
	c.Overwrites = slices.Clone(c.Overwrites)
	kind := "CHANNEL_UPDATE"
	made := s.channels[c.ID]
	switch {
	case made == nil:
		kind = "CHANNEL_CREATE"
		made = &channel{guild: g, byID: map[string]*message{}}
		s.channels[c.ID] = made
		g.channels = append(g.channels, made)
	case made.guild != g:
		return Channel{}, fmt.Errorf("discord: channel %s is not in guild %s", c.ID, g.ID)
	}
	made.Channel = c
	s.dispatch(kind, func(ss *session) any {
		if !ss.has(IntentGuilds, g) || !s.hasPermission(made, ss.bot, ViewChannel) {
			return nil
		}
		return s.channelJSON(made, ss.bot)
	})
	return c, nil
}

// Channels returns the channels of a guild, in order of creation.
func (s *Server) Channels(guildID string) []Channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Channel
	if g := s.guilds[guildID]; g != nil {
		for _, c := range g.channels {
			all = append(all, c.Channel)
		}
	}
	return all
}

func (s *Server) channel(id string) (*channel, error) {
	c := s.channels[id]
	if c == nil {
		return nil, fmt.Errorf("discord: there is no channel %q", id)
	}
	return c, nil
}

// channelJSON returns the channel object as seen by viewer.
func (s *Server) channelJSON(c *channel, viewer *account) map[string]any {
	j := map[string]any{"id": c.ID, "type": c.Type, "flags": 0, "last_message_id": nil}
	if n := len(c.messages); n > 0 {
		j["last_message_id"] = c.messages[n-1].ID
	}
	if c.guild == nil {
		recipients := []any{}
		for _, u := range c.users {
			if u != viewer {
				recipients = append(recipients, u.json())
			}
		}
		j["recipients"] = recipients
		return j
	}
	overwrites := []any{}
	for _, o := range c.Overwrites {
		kind := 0
		if c.guild.roles[o.ID] == nil {
			kind = 1
		}
		overwrites = append(overwrites, map[string]any{
			"id":    o.ID,
			"type":  kind,
			"allow": strconv.FormatUint(uint64(o.Allow), 10),
			"deny":  strconv.FormatUint(uint64(o.Deny), 10),
		})
	}
	j["guild_id"] = c.GuildID
	j["name"] = c.Name
	j["position"] = slices.Index(c.guild.channels, c)
	j["permission_overwrites"] = overwrites
	j["nsfw"] = false
	j["topic"] = nil
	j["parent_id"] = nil
	j["rate_limit_per_user"] = 0
	return j
}
