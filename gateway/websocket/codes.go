package websocket

import (
	"net/http"

	"parley.internal/gateway/loopback"
)

// ErrorCode is the reason for refusing a client's frame, the code of a chat.error frame. [Errors] explains each code.
type ErrorCode string

// The codes of a chat.error frame.
const (
	ErrNotJSON      ErrorCode = "not_json"
	ErrBadFrame     ErrorCode = "bad_frame"
	ErrTooLarge     ErrorCode = "too_large"
	ErrUnknownType  ErrorCode = "unknown_type"
	ErrNoText       ErrorCode = "no_text"
	ErrTextTooLong  ErrorCode = "text_too_long"
	ErrBadRoom      ErrorCode = "bad_room"
	ErrTooManyRooms ErrorCode = "too_many_rooms"
	ErrForbidden    ErrorCode = "forbidden"
	ErrRate         ErrorCode = "rate_limited"
	ErrBusy         ErrorCode = "busy"
	ErrUnavailable  ErrorCode = "unavailable"
)

// ErrorMeaning is a row of [Errors].
type ErrorMeaning struct {
	Code      ErrorCode
	Retryable bool // the same frame may succeed later; if it has the same metadata.id, it is the same event
	Meaning   string
}

// Errors is the table of all codes of chat.error frames. The connection stays open after each error.
var Errors = []ErrorMeaning{
	{ErrNotJSON, false, "The frame is not one JSON object in a text message: RFC 8259 with unique names, valid UTF-8 and at most 32 levels. Half a character, such as the escape \\ud83d alone, is accepted in a text and becomes U+FFFD."},
	{ErrBadFrame, false, "A member of the frame is missing, unknown or of the wrong kind, or metadata.id has half a character; the message names the member."},
	{ErrTooLarge, false, "The frame is longer than the limit."},
	{ErrUnknownType, false, "Clients may not send the frame's type: the type is missing, malformed, or an undefined type of a reserved namespace. The namespace is the part before the first dot. Reserved are chat, room, connection, twitch, discord, twilio, api-gateway, system, internal, hook, timer, member, message and typing."},
	{ErrNoText, false, "payload.text is missing or not a text, or consists of white space and invisible characters, such as U+200B."},
	{ErrTextTooLong, false, "payload.text has more characters than the limit."},
	{ErrBadRoom, false, "The room is missing or too long, contains control characters or half a character, or is a channel of a platform (such as twitch:NAME or discord:ID, in any letter case), or payload.room and payload.channel differ."},
	{ErrTooManyRooms, false, "The connection has the maximum number of rooms; leave a room first."},
	{ErrForbidden, false, "The user has no permission for moderation actions: an operator has to give the user the role moderator or broadcaster. A new role counts after at most WS_TOKEN_TTL (5 minutes by default), on open sockets too; through a new identity link, after at most an hour more. Then send the frame again, with the same metadata.id."},
	{ErrRate, true, "The frames of the user's connections exceed the rate limit; wait a moment. Pings, unrequested pongs and fragments of less than 512 bytes count as frames, too."},
	{ErrBusy, true, "Too many messages of the connection are waiting for publication; wait for answers."},
	{ErrUnavailable, true, "The message was not published. Send the frame again with the same metadata.id: both count as the same event."},
}

// CloseCode is the gateway's reason for closing a socket (RFC 6455, section 7.4). [Closes] explains each code. After a
// private code from 4000 to 4499, a client should reconnect. After 4500 to 4999, a client must change something first.
type CloseCode int

// The codes with which the gateway closes a socket.
const (
	CloseGoingAway    CloseCode = 1001
	CloseTooBig       CloseCode = 1009
	CloseMaxAge       CloseCode = 4000
	CloseSlow         CloseCode = 4001
	CloseSilent       CloseCode = 4002
	CloseFlood        CloseCode = 4003
	CloseNotResumed   CloseCode = 4004
	CloseNotRecorded  CloseCode = 4005
	CloseInterrupted  CloseCode = 4006
	CloseTokenExpired CloseCode = 4500
	CloseTokenRevoked CloseCode = 4501
	CloseUserBlocked  CloseCode = 4502
)

// CloseMeaning is a row of [Closes].
type CloseMeaning struct {
	Code      CloseCode
	Name      string // the reason in the close frame
	Reconnect bool   // a client should reconnect automatically, with exponential back-off and jitter
	Meaning   string
}

// Closes is the table of all close codes of the gateway. A client treats a connection without a close frame (1006: a
// network failure, a killed instance) like 1001.
var Closes = []CloseMeaning{
	{CloseGoingAway, "going_away", true, "The instance stops, after a deployment or because of scaling. The accepted messages are published, and the queued answers are written."},
	{CloseTooBig, "too_big", true, "A frame was many times longer than the limit, possibly only after inflating: too long even for skipping. Reconnect, but don't send the frame again."},
	{CloseMaxAge, "max_age", true, "The connection reached the age limit; the platform would cut it soon (Cloud Run ends every request after 60 minutes). Reconnect at once."},
	{CloseSlow, "slow", true, "The client reads too slowly, and too many frames waited. The unwritten frames are lost for the connection, and don't count as delivered."},
	{CloseSilent, "silent", true, "Neither a frame nor an answer to a ping arrived in time."},
	{CloseFlood, "flood", true, "The user's clients kept sending at several times the rate limit; pings, unrequested pongs and fragments of less than 512 bytes count as frames, too. Reconnect later, and send more slowly."},
	{CloseNotResumed, "not_resumed", true, "The missed answers could not be read. Nothing is lost: the next connection gets all of them."},
	{CloseNotRecorded, "not_recorded", true, "The delivery of a received answer could not be recorded. Reconnect and name the received answers (after); otherwise the answer may be dead-lettered despite its arrival."},
	{CloseInterrupted, "interrupted", true, "For a while, the instance received no answers. Reconnect: the next connection gets the missed answers."},
	{CloseTokenExpired, "token_expired", false, "The connection's token has expired. Reconnect with a new token."},
	{CloseTokenRevoked, "token_revoked", false, "The connection's token was revoked or deleted. Reconnect with a new token."},
	{CloseUserBlocked, "user_blocked", false, "An operator has blocked the user."},
}

func (c CloseCode) meaning() CloseMeaning {
	for _, m := range Closes {
		if m.Code == c {
			return m
		}
	}
	return CloseMeaning{Code: c, Name: "closed"}
}

// RefusalCode is the reason for refusing a connection before the upgrade to a WebSocket: error.code in the JSON body of
// the HTTP response. [Refusals] explains each code.
type RefusalCode string

// The codes of a refused connection.
const (
	RefuseNotSocket    RefusalCode = "not_a_websocket"
	RefuseHost         RefusalCode = loopback.Code
	RefuseOrigin       RefusalCode = "origin_refused"
	RefuseNoToken      RefusalCode = "token_missing"
	RefuseUnknownToken RefusalCode = "token_unknown"
	RefuseLimited      RefusalCode = "too_many_unknown_tokens"
	RefuseExpired      RefusalCode = "token_expired"
	RefuseRevoked      RefusalCode = "token_revoked"
	RefuseBlocked      RefusalCode = "user_blocked"
	RefuseParameter    RefusalCode = "bad_parameter"
	RefusePerUser      RefusalCode = "too_many_connections"
	RefuseFull         RefusalCode = "full"
	RefuseUnavailable  RefusalCode = "unavailable"
	RefuseDraining     RefusalCode = "draining"
)

// RefusalMeaning is a row of [Refusals].
type RefusalMeaning struct {
	Code      RefusalCode
	Status    int  // of the HTTP response
	Retryable bool // the same request may succeed later
	Meaning   string
}

// Refusals is the table of all reasons for refusing a connection.
var Refusals = []RefusalMeaning{
	{RefuseNotSocket, http.StatusUpgradeRequired, false, "The request is not a WebSocket handshake (RFC 6455, section 4.2.1)."},
	{RefuseHost, http.StatusMisdirectedRequest, false, "The gateway serves only the person's own machine, and the request names another host. Use localhost, a loopback address, or the host of PUBLIC_URL."},
	{RefuseOrigin, http.StatusForbidden, false, "The page is from a different host, and the host is not in the list of allowed origins."},
	{RefuseNoToken, http.StatusUnauthorized, false, "The request has no token: neither Authorization: Bearer TOKEN nor the sub-protocol bearer.TOKEN."},
	{RefuseUnknownToken, http.StatusUnauthorized, false, "The token is unknown."},
	{RefuseLimited, http.StatusTooManyRequests, true, "Too many unknown tokens came from the client's address, or from all addresses, so the token was not looked up. A valid token is accepted later."},
	{RefuseExpired, http.StatusUnauthorized, false, "The token has expired."},
	{RefuseRevoked, http.StatusUnauthorized, false, "The token was revoked."},
	{RefuseBlocked, http.StatusForbidden, false, "An operator has blocked the user."},
	{RefuseParameter, http.StatusBadRequest, false, "The parameter ack is neither 1 nor true. Omit the parameter for a connection without acknowledgements."},
	{RefusePerUser, http.StatusTooManyRequests, true, "The user has the maximum number of connections to the instance."},
	{RefuseFull, http.StatusServiceUnavailable, true, "The instance has the maximum number of connections; a second attempt may reach a different instance."},
	{RefuseUnavailable, http.StatusServiceUnavailable, true, "The token or its user could not be read."},
	{RefuseDraining, http.StatusServiceUnavailable, true, "The instance stops; a second attempt reaches a different instance."},
}

func (c RefusalCode) meaning() RefusalMeaning {
	for _, m := range Refusals {
		if m.Code == c {
			return m
		}
	}
	return RefusalMeaning{Code: c, Status: http.StatusInternalServerError}
}
