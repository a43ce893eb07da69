package discord

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bwmarrin/discordgo"
)

// guilds is what Discord told of the servers that the bot is in. The library's own State keeps much more, and hands out
// what it goes on changing.
type guilds struct {
	mu       sync.RWMutex
	byID     map[string]*guild
	channels map[string]channel
}

// guild is a server.
type guild struct {
	ID            string               `json:"id"`
	Name          string               `json:"name"`
	OwnerID       string               `json:"owner_id"`
	SystemChannel string               `json:"system_channel_id"`
	Joined        time.Time            `json:"joined_at"` // when the bot did
	Unavailable   bool                 `json:"unavailable"`
	Roles         []*discordgo.Role    `json:"roles"`
	Channels      []*discordgo.Channel `json:"channels"`
	Threads       []*discordgo.Channel `json:"threads"`

	roles map[string]string // names by id; never changed, only replaced
}

// channel is what is kept of a channel or thread.
type channel struct {
	guild, name, parent string
	kind                discordgo.ChannelType
}

// place is what is known of where something happened.
type place struct {
	guildID, guildName, ownerID string
	system                      string            // the guild's channel for what Discord itself says
	roles                       map[string]string // names by id, of the guild; not to be changed
	name                        string            // of the channel
	parent, parentName          string            // of a thread
	thread                      bool
}

func newGuilds() *guilds { return &guilds{byID: map[string]*guild{}, channels: map[string]channel{}} }

// place tells of a channel, which may be none, in a guild, which may be none.
func (g *guilds) place(channelID, guildID string) place {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var p place
	c, ok := g.channels[channelID]
	if ok {
		p.name = c.name
		if guildID == "" {
			guildID = c.guild
		}
		switch c.kind {
		case discordgo.ChannelTypeGuildNewsThread, discordgo.ChannelTypeGuildPublicThread, discordgo.ChannelTypeGuildPrivateThread:
			p.thread, p.parent, p.parentName = true, c.parent, g.channels[c.parent].name
		}
	}
	p.guildID = guildID
	if found := g.byID[guildID]; found != nil {
		p.guildName, p.ownerID, p.roles, p.system = found.Name, found.OwnerID, found.roles, found.SystemChannel
	}
	return p
}

// told takes in what an event tells of servers. It gives back the server that has just become known, if that is what it
// tells, and the channel.
func (g *guilds) told(kind string, data []byte) (appeared *guild, opened *discordgo.Channel, err error) {
	switch kind {
	case "GUILD_CREATE", "GUILD_UPDATE":
		var now guild
		if err := json.Unmarshal(data, &now); err != nil {
			return nil, nil, err
		}
		if now.Unavailable {
			return nil, nil, nil
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		now.roles = map[string]string{}
		for _, r := range now.Roles {
			now.roles[r.ID] = r.Name
		}
		if before := g.byID[now.ID]; before != nil && now.Roles == nil {
			now.roles = before.roles
		}
		for _, c := range slices.Concat(now.Channels, now.Threads) {
			c.GuildID = now.ID
			g.keep(c)
		}
		kept := now
		kept.Channels, kept.Threads, kept.Roles = nil, nil, nil
		g.byID[now.ID] = &kept
		if kind == "GUILD_CREATE" {
			return &now, nil, nil
		}
	case "GUILD_DELETE":
		var gone guild
		if err := json.Unmarshal(data, &gone); err != nil || gone.Unavailable {
			return nil, nil, err // one that can't be reached for a while comes back
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.byID, gone.ID)
		maps.DeleteFunc(g.channels, func(_ string, c channel) bool { return c.guild == gone.ID })
	case "GUILD_ROLE_CREATE", "GUILD_ROLE_UPDATE", "GUILD_ROLE_DELETE":
		var r struct {
			Guild string          `json:"guild_id"`
			Role  *discordgo.Role `json:"role"`
			Gone  string          `json:"role_id"`
		}
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, nil, err
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if in := g.byID[r.Guild]; in != nil {
			roles := maps.Clone(in.roles)
			if r.Role != nil {
				roles[r.Role.ID] = r.Role.Name
			} else {
				delete(roles, r.Gone)
			}
			in.roles = roles
		}
	case "CHANNEL_CREATE", "CHANNEL_UPDATE", "THREAD_CREATE", "THREAD_UPDATE":
		c := new(discordgo.Channel)
		if err := json.Unmarshal(data, c); err != nil {
			return nil, nil, err
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.keep(c)
		if kind == "CHANNEL_CREATE" || kind == "THREAD_CREATE" {
			return nil, c, nil
		}
	case "CHANNEL_DELETE", "THREAD_DELETE":
		var c discordgo.Channel
		if err := json.Unmarshal(data, &c); err != nil {
			return nil, nil, err
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.channels, c.ID)
	case "THREAD_LIST_SYNC":
		var list struct {
			Guild   string               `json:"guild_id"`
			Threads []*discordgo.Channel `json:"threads"`
		}
		if err := json.Unmarshal(data, &list); err != nil {
			return nil, nil, err
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, c := range list.Threads {
			c.GuildID = list.Guild
			g.keep(c)
		}
	}
	return nil, nil, nil
}

func (g *guilds) keep(c *discordgo.Channel) {
	g.channels[c.ID] = channel{guild: c.GuildID, name: c.Name, parent: c.ParentID, kind: c.Type}
}

// talks reports whether something can be said in a channel of this kind.
func talks(kind discordgo.ChannelType) bool {
	switch kind {
	case discordgo.ChannelTypeGuildCategory, discordgo.ChannelTypeGuildStore, discordgo.ChannelTypeGuildDirectory,
		discordgo.ChannelTypeGuildForum, discordgo.ChannelTypeGuildMedia:
		return false
	}
	return true
}
