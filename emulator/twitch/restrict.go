package twitch

import (
	"net/http"
	"time"
)

// longestTimeout is two weeks, in seconds.
const longestTimeout = 1209600

// moderator checks that the caller is the user moderator_id, and moderates the channel broadcaster_id.
func (s *Server) moderator(c *call, scope string) (*room, answer, bool) {
	no, fine := c.userOnly(scope)
	switch {
	case !fine:
		return nil, no, false
	case c.query("broadcaster_id") == "":
		return nil, missingParameter("broadcaster_id"), false
	case c.query("moderator_id") == "":
		return nil, missingParameter("moderator_id"), false
	case c.query("moderator_id") != c.user.ID:
		return nil, refuse(http.StatusUnauthorized, "The ID in moderator_id must match the user ID found in the request's OAuth token."), false
	}
	a := s.users[c.query("broadcaster_id")]
	if a == nil {
		return nil, badRequest("The ID in broadcaster_id is not valid."), false
	}
	if !a.room.moderates(c.user) {
		return nil, refuse(http.StatusForbidden, "The user in moderator_id is not one of the broadcaster's moderators."), false
	}
	return &a.room, answer{}, true
}

// banUser implements https://dev.twitch.tv/docs/api/reference/#ban-user
func (s *Server) banUser(c *call) answer {
	r, no, fine := s.moderator(c, "moderator:manage:banned_users")
	if !fine {
		return no
	}
	var in struct {
		Data struct {
			UserID   string `json:"user_id"`
			Duration *int   `json:"duration"`
			Reason   string `json:"reason"`
		} `json:"data"`
	}
	if !c.decode(&in) || in.Data.UserID == "" {
		return badRequest("The user_id field is required.")
	}
	u := s.users[in.Data.UserID]
	switch {
	case u == nil:
		return badRequest("The ID in user_id is not valid.")
	case r.broadcaster(u):
		return badRequest("The user specified in the user_id field may not be banned.")
	case r.roles[u.ID].Moderator && !r.broadcaster(c.user):
		return badRequest("The user specified in the user_id field may not be banned.")
	case len(in.Data.Reason) > 500:
		return badRequest("The text in the reason field is too long.")
	}
	var d time.Duration
	if in.Data.Duration != nil {
		if *in.Data.Duration < 1 || *in.Data.Duration > longestTimeout {
			return badRequest("The value in the duration field is not valid.")
		}
		d = time.Duration(*in.Data.Duration) * time.Second
	}
	if b, banned := r.banned(u, s.now()); banned && b.until.IsZero() {
		return badRequest("The user specified in the user_id field is already banned.")
	}
	b := s.ban(r, c.user, u, d, in.Data.Reason)
	type banned struct {
		BroadcasterID string  `json:"broadcaster_id"`
		ModeratorID   string  `json:"moderator_id"`
		UserID        string  `json:"user_id"`
		CreatedAt     string  `json:"created_at"`
		EndTime       *string `json:"end_time"`
	}
	out := banned{r.owner.ID, c.user.ID, u.ID, b.since.UTC().Format(time.RFC3339), nil}
	if !b.until.IsZero() {
		end := b.until.UTC().Format(time.RFC3339)
		out.EndTime = &end
	}
	return success(data([]banned{out}))
}

// unbanUser implements https://dev.twitch.tv/docs/api/reference/#unban-user
func (s *Server) unbanUser(c *call) answer {
	r, no, fine := s.moderator(c, "moderator:manage:banned_users")
	if !fine {
		return no
	}
	if c.query("user_id") == "" {
		return missingParameter("user_id")
	}
	u := s.users[c.query("user_id")]
	if u == nil {
		return badRequest("The ID in user_id is not valid.")
	}
	if _, banned := r.banned(u, s.now()); !banned {
		return badRequest("The user in the user_id query parameter is not banned.")
	}
	s.unban(r, c.user, u)
	return answer{status: http.StatusNoContent}
}

// deletable is the largest age of a line that a moderator can delete.
const deletable = 6 * time.Hour

// deleteChat implements https://dev.twitch.tv/docs/api/reference/#delete-chat-messages
func (s *Server) deleteChat(c *call) answer {
	r, no, fine := s.moderator(c, "moderator:manage:chat_messages")
	if !fine {
		return no
	}
	id := c.query("message_id")
	if id == "" {
		s.clear(r, c.user)
		return answer{status: http.StatusNoContent}
	}
	l := r.byID[id]
	if l == nil || l.Deleted || s.now().Sub(l.At) > deletable {
		return refuse(http.StatusNotFound, "The ID in message_id was not found, or the message was created more than 6 hours ago.")
	}
	if u := s.users[l.UserID]; u != c.user && r.moderates(u) && !r.broadcaster(c.user) {
		return badRequest("You may not delete another moderator's messages.")
	}
	s.deleteLine(r, c.user, l)
	return answer{status: http.StatusNoContent}
}
