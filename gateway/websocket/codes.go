package websocket

import "net/http"

// ErrorCode is why a client's frame was refused: the code of a chat.error frame. [Errors] explains each.
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
	ErrRate         ErrorCode = "rate_limited"
	ErrBusy         ErrorCode = "busy"
	ErrUnavailable  ErrorCode = "unavailable"
)

// ErrorMeaning is a line of [Errors].
type ErrorMeaning struct {
	Code    ErrorCode
	Retryable   bool // the same frame may succeed later; with the same metadata.id it is then the same event
	Meaning string
}

// Errors is the table of everything that a chat.error frame can say. The connection stays open after each.
var Errors = []ErrorMeaning{
	{ErrNotJSON, false, "The frame is not one JSON object in a text message: RFC 8259 with unique names, valid UTF-8 and at most 32 levels."},
	{ErrBadFrame, false, "A member of the frame is missing, unknown or of the wrong kind; the message names it."},
	{ErrTooLarge, false, "The frame is longer than the gateway takes."},
	{ErrUnknownType, false, "The frame's type is not one that a client may send: it is missing, ill-formed, or of a namespace that the protocol keeps to itself (chat, room, connection, internal) and not defined there."},
	{ErrNoText, false, "payload.text is missing, blank or not a text."},
	{ErrTextTooLong, false, "payload.text has more characters than the gateway takes."},
	{ErrBadRoom, false, "The room is missing, too long, or holds control characters, or payload.room and payload.channel differ."},
	{ErrTooManyRooms, false, "The connection is in as many rooms as it may be; leave one first."},
	{ErrRate, true, "More frames came than the connection's rate allows; wait a moment."},
	{ErrBusy, true, "More messages wait to be taken over than the connection may have waiting; wait for answers."},
	{ErrUnavailable, true, "The message could not be taken over. Send it again with the same metadata.id: it counts once."},
}

// CloseCode is why the gateway closes a socket (RFC 6455, section 7.4). [Closes] explains each. Of the private codes,
// 4000 to 4499 invite the client to come back, 4500 to 4999 tell it not to without a change.
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
)

// CloseMeaning is a line of [Closes].
type CloseMeaning struct {
	Code    CloseCode
	Name    string // the reason in the close frame
	Reconnect    bool   // a client should come back by itself, with a back-off that grows and is spread
	Meaning string
}

// Closes is the table of everything with which the gateway closes a socket. What a client meets without a close frame
// (1006: the network, a killed instance) is like 1001 to it.
var Closes = []CloseMeaning{
	{CloseGoingAway, "going_away", true, "The instance stops, after a deployment or because fewer are needed. What it had accepted is published, what it had to deliver is written."},
	{CloseTooBig, "too_big", true, "A frame was many times longer than allowed, too long even to be skipped. Come back, but not with this frame."},
	{CloseMaxAge, "max_age", true, "The connection reached its age limit; the platform would cut it soon (Cloud Run ends every request after 60 minutes). Come back at once."},
	{CloseSlow, "slow", true, "The client reads more slowly than its frames come, and too many waited. Those that were not written are lost to this connection and not counted as delivered."},
	{CloseSilent, "silent", true, "Neither a frame nor an answer to a ping came for too long."},
	{CloseFlood, "flood", true, "The client went on sending at several times the allowed rate. Come back later, and slower."},
	{CloseNotResumed, "not_resumed", true, "What the client missed could not be looked up. Nothing of it is lost: it comes with the next connection."},
	{CloseNotRecorded, "not_recorded", true, "What the client got could not be recorded as delivered. Come back and name it (after), and it is; without, it may be dead-lettered although it arrived."},
	{CloseInterrupted, "interrupted", true, "For a while no answers came to the instance. Come back: those that were meant for the client come with the next connection."},
	{CloseTokenExpired, "token_expired", false, "The token with which the connection was opened has expired. Come back with another one."},
}

func (c CloseCode) meaning() CloseMeaning {
	for _, m := range Closes {
		if m.Code == c {
			return m
		}
	}
	return CloseMeaning{Code: c, Name: "closed"}
}

// RefusalCode is why a connection was refused before it became a socket: error.code in the answer's JSON body.
// [Refusals] explains each.
type RefusalCode string

// The codes of a refused connection.
const (
	RefuseNotSocket    RefusalCode = "not_a_websocket"
	RefuseOrigin       RefusalCode = "origin_refused"
	RefuseNoToken      RefusalCode = "token_missing"
	RefuseUnknownToken RefusalCode = "token_unknown"
	RefuseExpired      RefusalCode = "token_expired"
	RefuseRevoked      RefusalCode = "token_revoked"
	RefuseParameter    RefusalCode = "bad_parameter"
	RefusePerUser      RefusalCode = "too_many_connections"
	RefuseFull         RefusalCode = "full"
	RefuseUnavailable  RefusalCode = "unavailable"
	RefuseDraining     RefusalCode = "draining"
)

// RefusalMeaning is a line of [Refusals].
type RefusalMeaning struct {
	Code    RefusalCode
	Status  int  // HTTP status of the answer
	Retryable   bool // the same request may succeed later
	Meaning string
}

// Refusals is the table of all reasons for which a connection is not made.
var Refusals = []RefusalMeaning{
	{RefuseNotSocket, http.StatusUpgradeRequired, false, "The request is not a WebSocket handshake (RFC 6455, section 4.2.1)."},
	{RefuseOrigin, http.StatusForbidden, false, "The page that opens the socket comes from another host, which is not among the allowed origins."},
	{RefuseNoToken, http.StatusUnauthorized, false, "There is no token: neither Authorization: Bearer TOKEN nor the sub-protocol bearer.TOKEN."},
	{RefuseUnknownToken, http.StatusUnauthorized, false, "The token is not known."},
	{RefuseExpired, http.StatusUnauthorized, false, "The token has expired."},
	{RefuseRevoked, http.StatusUnauthorized, false, "The token was revoked."},
	{RefuseParameter, http.StatusBadRequest, false, "The parameter ack is neither 1 nor true: leave it out for a connection that does not acknowledge."},
	{RefusePerUser, http.StatusTooManyRequests, true, "The user has as many connections to this instance as one may have."},
	{RefuseFull, http.StatusServiceUnavailable, true, "The instance holds as many connections as it can; another one may have room."},
	{RefuseUnavailable, http.StatusServiceUnavailable, true, "The token could not be looked up."},
	{RefuseDraining, http.StatusServiceUnavailable, true, "The instance stops; another one takes the connection."},
}

func (c RefusalCode) meaning() RefusalMeaning {
	for _, m := range Refusals {
		if m.Code == c {
			return m
		}
	}
	return RefusalMeaning{Code: c, Status: http.StatusInternalServerError}
}
