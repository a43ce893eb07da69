package twitch

import (
	"maps"
	"net/http"
	"slices"
	"time"
)

// Subscription is an EventSub subscription in its JSON form.
// https://dev.twitch.tv/docs/eventsub/eventsub-reference/#subscription
type Subscription struct {
	ID        string            `json:"id"`
	Status    string            `json:"status"`
	Type      string            `json:"type"`
	Version   string            `json:"version"`
	Condition map[string]string `json:"condition"`
	Transport Transport         `json:"transport"`
	CreatedAt string            `json:"created_at"`
	Cost      int               `json:"cost"`
}

// Transport is the destination of notifications.
type Transport struct {
	Method         string `json:"method"`
	SessionID      string `json:"session_id"`
	ConnectedAt    string `json:"connected_at,omitempty"`
	DisconnectedAt string `json:"disconnected_at,omitempty"`
}

type subscription struct {
	Subscription
	clientID string
	userID   string
	latest   []byte // the latest notification
}

// kind is a type of subscription.
// https://dev.twitch.tv/docs/eventsub/eventsub-subscription-types/
type kind struct {
	version string
	// conditions are required fields. Of oneOf, exactly one field is required.
	conditions []string
	oneOf      []string
	// scopes lists alternatives: the token needs one of the scopes. Public events have none.
	scopes []string
	// self is the condition that must name the token's user.
	self string
}

var kinds = map[string]kind{
	"channel.follow": {
		version:    "2",
		conditions: []string{"broadcaster_user_id", "moderator_user_id"},
		scopes:     []string{"moderator:read:followers"},
		self:       "moderator_user_id",
	},
	"channel.subscribe": {
		version:    "1",
		conditions: []string{"broadcaster_user_id"},
		scopes:     []string{"channel:read:subscriptions"},
		self:       "broadcaster_user_id",
	},
	"channel.raid": {
		version: "1",
		oneOf:   []string{"from_broadcaster_user_id", "to_broadcaster_user_id"},
	},
	"channel.chat.message": {
		version:    "1",
		conditions: []string{"broadcaster_user_id", "user_id"},
		scopes:     []string{"user:read:chat"},
		self:       "user_id",
	},
	"user.whisper.message": {
		version:    "1",
		conditions: []string{"user_id"},
		scopes:     []string{"user:read:whispers", "user:manage:whispers"},
		self:       "user_id",
	},
	"stream.online":  {version: "1", conditions: []string{"broadcaster_user_id"}},
	"stream.offline": {version: "1", conditions: []string{"broadcaster_user_id"}},
}

// Limits: https://dev.twitch.tv/docs/eventsub/handling-websocket-events/#subscription-limits
const (
	maxSessionSubs = 300
	maxTotalCost   = 10
	maxSessions    = 3 // sessions with enabled subscriptions, per app and user
)

// createSubscription implements https://dev.twitch.tv/docs/api/reference/#create-eventsub-subscription
func (s *Server) createSubscription(c *call) answer {
	var in subscriptionRequest
	if !c.decode(&in) {
		return badRequest("The request body is not valid JSON.")
	}
	// Clients that know all conditions send the unused conditions empty.
	maps.DeleteFunc(in.Condition, func(_, v string) bool { return v == "" })
	if no, ok := s.checkSubscription(c, in); !ok {
		return no
	}
	ss := s.sessions[in.Transport.SessionID]
	if ss == nil {
		return badRequest("websocket transport session does not exist or has already disconnected")
	}
	if ss.userID != "" && ss.userID != c.user.ID {
		return badRequest("websocket transport cannot have subscriptions created by different users")
	}
	cost, total := 1, 0
	if kinds[in.Type].self != "" || in.Condition["broadcaster_user_id"] == c.user.ID {
		cost = 0 // a subscription authorized by its user is free
	}
	sessions := map[string]bool{ss.id: true}
	for _, id := range s.subOrder {
		sub := s.subs[id]
		if sub.Status != "enabled" || sub.clientID != c.token.ClientID || sub.userID != c.user.ID {
			continue
		}
		total += sub.Cost
		sessions[sub.Transport.SessionID] = true
		if sub.Transport.SessionID == ss.id && sub.Type == in.Type && maps.Equal(sub.Condition, in.Condition) {
			return refuse(http.StatusConflict, "subscription already exists")
		}
	}
	if total+cost > maxTotalCost {
		return refuse(http.StatusTooManyRequests, "total cost exceeded")
	}
	if len(ss.subs) >= maxSessionSubs || len(sessions) > maxSessions {
		return refuse(http.StatusTooManyRequests, "number of websocket transports limit exceeded")
	}
	sub := &subscription{
		Subscription: Subscription{
			ID: newID(), Status: "enabled", Type: in.Type, Version: in.Version, Condition: in.Condition,
			Transport: Transport{Method: "websocket", SessionID: ss.id, ConnectedAt: nanos(ss.since)},
			CreatedAt: nanos(s.now()), Cost: cost,
		},
		clientID: c.token.ClientID,
		userID:   c.user.ID,
	}
	ss.userID = c.user.ID
	ss.subs[sub.ID] = true
	s.subs[sub.ID] = sub
	s.subOrder = append(s.subOrder, sub.ID)
	return answer{status: http.StatusAccepted, body: map[string]any{
		"data":           []Subscription{sub.Subscription},
		"total":          len(s.callerSubscriptions(c)),
		"total_cost":     total + cost,
		"max_total_cost": maxTotalCost,
	}}
}

// subscriptionRequest is the body of Create EventSub Subscription.
type subscriptionRequest struct {
	Type      string            `json:"type"`
	Version   string            `json:"version"`
	Condition map[string]string `json:"condition"`
	Transport Transport         `json:"transport"`
}

// checkSubscription checks the type, the conditions and the permission of a request. If the request is refused, ok is
// false and no is the answer.
func (s *Server) checkSubscription(c *call, in subscriptionRequest) (no answer, ok bool) {
	k, known := kinds[in.Type]
	switch {
	case in.Type == "":
		return badRequest("The type field is required."), false
	case in.Version == "":
		return badRequest("The version field is required."), false
	case !known || k.version != in.Version:
		return badRequest("invalid subscription type and version"), false
	case in.Transport.Method != "websocket":
		return badRequest("unsupported transport method: this fake supports websocket only"), false
	case c.user == nil:
		return badRequest("invalid transport and auth combination"), false
	}
	allowed := slices.Concat(k.conditions, k.oneOf)
	for name, id := range in.Condition {
		if !slices.Contains(allowed, name) {
			return badRequest("invalid condition: " + name), false
		}
		if s.users[id] == nil {
			return badRequest("the condition " + name + " is not the id of a user"), false
		}
	}
	for _, name := range k.conditions {
		if in.Condition[name] == "" {
			return badRequest("missing condition: " + name), false
		}
	}
	if len(k.oneOf) > 0 && len(in.Condition) != 1 {
		return badRequest("exactly one condition is needed of " + k.oneOf[0] + " and " + k.oneOf[1]), false
	}
	forbidden := refuse(http.StatusForbidden, "subscription missing proper authorization")
	if len(k.scopes) > 0 && !c.token.has(k.scopes...) || k.self != "" && in.Condition[k.self] != c.user.ID {
		return forbidden, false
	}
	if in.Type == "channel.follow" && !s.users[in.Condition["broadcaster_user_id"]].room.moderates(c.user) {
		return forbidden, false
	}
	return answer{}, true
}

// callerSubscriptions returns the subscriptions of the caller's app and user.
func (s *Server) callerSubscriptions(c *call) []*subscription {
	var own []*subscription
	for _, id := range s.subOrder {
		if sub := s.subs[id]; sub.clientID == c.token.ClientID && sub.userID == c.token.UserID {
			own = append(own, sub)
		}
	}
	return own
}

// getSubscriptions implements https://dev.twitch.tv/docs/api/reference/#get-eventsub-subscriptions
func (s *Server) getSubscriptions(c *call) answer {
	q := c.r.URL.Query()
	filters := 0
	for _, name := range []string{"status", "type", "user_id", "subscription_id"} {
		if q.Get(name) != "" {
			filters++
		}
	}
	if filters > 1 {
		return badRequest("You may specify only one filter query parameter.")
	}
	found, cost, total := []Subscription{}, 0, 0
	for _, sub := range s.callerSubscriptions(c) {
		total++
		if sub.Status == "enabled" {
			cost += sub.Cost
		}
		if v := q.Get("status"); v != "" && v != sub.Status {
			continue
		}
		if v := q.Get("type"); v != "" && v != sub.Type {
			continue
		}
		if v := q.Get("subscription_id"); v != "" && v != sub.ID {
			continue
		}
		if v := q.Get("user_id"); v != "" && !slices.Contains(slices.Collect(maps.Values(sub.Condition)), v) {
			continue
		}
		found = append(found, sub.Subscription)
	}
	return success(map[string]any{
		"data":           found,
		"total":          total,
		"total_cost":     cost,
		"max_total_cost": maxTotalCost,
		"pagination":     map[string]any{},
	})
}

// deleteSubscription implements https://dev.twitch.tv/docs/api/reference/#delete-eventsub-subscription
func (s *Server) deleteSubscription(c *call) answer {
	id := c.query("id")
	if id == "" {
		return missingParameter("id")
	}
	sub := s.subs[id]
	if sub == nil || sub.clientID != c.token.ClientID || sub.userID != c.token.UserID {
		return refuse(http.StatusNotFound, "The subscription was not found.")
	}
	if ss := s.sessions[sub.Transport.SessionID]; ss != nil {
		delete(ss.subs, id)
	}
	delete(s.subs, id)
	s.subOrder = slices.DeleteFunc(s.subOrder, func(other string) bool { return other == id })
	return answer{status: http.StatusNoContent}
}

// notify sends an event to the subscriptions of its type, if all conditions of the subscription match.
func (s *Server) notify(name string, event map[string]any, holds map[string]string) {
	for _, id := range s.subOrder {
		sub := s.subs[id]
		ss := s.sessions[sub.Transport.SessionID]
		if ss == nil || sub.Type != name || sub.Status != "enabled" {
			continue
		}
		matches := true
		for condition, want := range sub.Condition {
			have, asked := holds[condition]
			matches = matches && (!asked || have == want)
		}
		if !matches {
			continue
		}
		sub.latest = encodeFrame(metadata{
			MessageID: newID(), MessageType: "notification", MessageTimestamp: nanos(s.now()),
			SubscriptionType: sub.Type, SubscriptionVersion: sub.Version,
		}, map[string]any{"subscription": sub.Subscription, "event": event})
		ss.conn.Push(sub.latest)
	}
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
