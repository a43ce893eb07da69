package playground

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"parley.internal/emulator/twitch"
	"parley.internal/shared/identity"
)

type twitchPlatform struct {
	srv  *twitch.Server
	bots map[string]bool // by id

	mu    sync.Mutex
	shown map[string]bool // channels, by login
}

func newTwitchPlatform(srv *twitch.Server, bots []identity.UserID) *twitchPlatform {
	p := &twitchPlatform{srv: srv, bots: map[string]bool{}, shown: map[string]bool{}}
	for _, b := range bots {
		if b.Platform() == identity.Twitch {
			p.bots[b.ID()] = true
		}
	}
	return p
}

func (p *twitchPlatform) await(ctx context.Context, cond func() bool) error {
	return p.srv.Await(ctx, cond)
}

// maxIdle bounds the channels shown if all channels are empty.
const maxIdle = 20

// twitchRoom is a shown channel.
type twitchRoom struct {
	twitch.User          // the owner of the channel
	joined      []string // logins of the users in the channel
}

// channels returns the channels with present or past members or lines. Every user has a channel, and most channels are
// empty. If all channels are empty, it returns the first maxIdle channels, so that a person has a place to write.
//
// It reads the members of each channel once. So a result with a member somewhere has no channel that was always empty,
// even if a user joins at the same time.
func (p *twitchPlatform) channels(users []twitch.User) []twitchRoom {
	p.mu.Lock()
	defer p.mu.Unlock()
	rooms := make([]twitchRoom, len(users))
	for i, u := range users {
		rooms[i] = twitchRoom{u, p.srv.Joined(u.Login)}
		if !p.shown[u.Login] && (len(rooms[i].joined) > 0 || len(p.srv.Said(u.Login)) > 0) {
			p.shown[u.Login] = true
		}
	}
	if len(p.shown) == 0 {
		return rooms[:min(len(rooms), maxIdle)]
	}
	return slices.DeleteFunc(rooms, func(r twitchRoom) bool { return !p.shown[r.Login] })
}

// Ids of Twitch's places.
func twitchChannel(login string) string { return "twitch/channel/" + login }
func twitchDirect(bot string) string    { return "twitch/direct/" + bot }

const twitchModeration = "twitch/moderation"

func (p *twitchPlatform) state() Platform {
	users := p.srv.Users()
	state := Platform{ID: identity.Twitch, Name: "Twitch", Places: []Place{}}
	people := []Speaker{}
	for _, u := range users {
		if !p.bots[u.ID] {
			people = append(people, Speaker{ID: u.Login, Name: u.DisplayName})
		}
	}
	for _, c := range p.channels(users) {
		speakers := slices.Clone(people)
		for i := range speakers {
			if speakers[i].ID == c.Login {
				speakers[i].Note = "broadcaster"
			}
		}
		bots := []string{}
		for _, u := range users {
			if p.bots[u.ID] && slices.Contains(c.joined, u.Login) {
				bots = append(bots, u.DisplayName)
			}
		}
		state.Places = append(state.Places, Place{
			ID: twitchChannel(c.Login), Kind: Channel, Name: "#" + c.Login,
			Messages: "twitch/channels/" + c.Login + "/messages", Speakers: speakers, Bots: bots,
		})
	}
	for _, u := range users {
		if !p.bots[u.ID] {
			continue
		}
		place := Place{
			ID: twitchDirect(u.Login), Kind: Direct, Name: "Whispers with " + u.DisplayName,
			Messages: "twitch/users/" + u.Login + "/whispers", Speakers: people, Bots: []string{},
		}
		if p.srv.Connections(u.Login) > 0 {
			place.Bots = []string{u.DisplayName}
		}
		state.Places = append(state.Places, place)
	}
	state.Places = append(state.Places, Place{
		ID: twitchModeration, Kind: Moderation, Name: "Moderation", Speakers: []Speaker{}, Bots: []string{},
	})
	return state
}

func (p *twitchPlatform) sources() []source {
	users := p.srv.Users()
	names := map[string]string{}
	bots := map[string]bool{} // by login
	for _, u := range users {
		names[u.Login], bots[u.Login] = u.DisplayName, p.bots[u.ID]
	}
	var all []source
	for _, c := range p.channels(users) {
		all = append(all,
			source{twitchChannel(c.Login), func(n int) []Line { return p.lines(c.Login, n) }},
			source{twitchModeration + "/" + c.Login, func(n int) []Line {
				var lines []Line
				for _, a := range after(p.srv.Actions(c.Login), n) {
					by := a.By
					if by == "" {
						by = c.Login
					}
					lines = append(lines, Line{
						Place: twitchModeration, Name: names[by], Bot: bots[by], Text: describeAction(c.Login, a),
						About: a.MessageID, At: a.At.UnixMilli(),
					})
				}
				return lines
			}})
	}
	for _, u := range users {
		all = append(all, source{"twitch/whispers/" + u.Login, func(n int) []Line {
			var lines []Line
			for _, w := range after(p.srv.Whispers(u.Login), n) {
				l := Line{
					ID: w.ID, Name: names[w.From], Bot: bots[w.From], To: names[w.To], Text: w.Text, At: w.At.UnixMilli(),
				}
				switch {
				case bots[w.To]:
					l.Place = twitchDirect(w.To)
				case bots[w.From]:
					l.Place = twitchDirect(w.From)
				}
				lines = append(lines, l)
			}
			return lines
		}})
	}
	return all
}

func after[T any](all []T, n int) []T { return all[min(n, len(all)):] }

func (p *twitchPlatform) lines(channel string, n int) []Line {
	said := p.srv.SaidFrom(channel, n)
	lines := make([]Line, 0, len(said))
	for _, l := range said {
		via := l.Via
		if via == twitch.ViaSay {
			via = ""
		}
		lines = append(lines, Line{
			Place: twitchChannel(channel), ID: l.ID, Name: l.DisplayName, Bot: p.bots[l.UserID], Text: l.Text,
			About: l.ReplyTo, Via: via, At: l.At.UnixMilli(), Action: l.Action, Deleted: l.Deleted,
		})
	}
	return lines
}

// describeAction describes an action of a moderator.
func describeAction(channel string, a twitch.Action) string {
	var text string
	switch a.Kind {
	case twitch.ActionBan:
		text = "banned " + a.Login
	case twitch.ActionTimeout:
		text = fmt.Sprintf("timed out %s for %s", a.Login, a.Duration)
	case twitch.ActionUnban:
		text = "let " + a.Login + " in again"
	case twitch.ActionDelete:
		text = "deleted a line of " + a.Login
	case twitch.ActionClear:
		text = "cleared the chat"
	default:
		text = a.Kind + " " + a.Login
	}
	text += " in #" + channel
	if a.Reason != "" {
		text += ": " + a.Reason
	}
	return text
}
