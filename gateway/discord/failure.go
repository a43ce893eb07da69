package discord

import (
	"fmt"
	"net/http"
	"time"

	"github.com/bwmarrin/discordgo"

	"parley.internal/shared/deadletter"
)

// failure is the error of a request to Discord's REST API.
type failure struct {
	status     int           // HTTP status; 0 without a response
	code       int           // Discord's error code; 0 for none (https://discord.com/developers/docs/topics/opcodes-and-status-codes#json)
	unknown    bool          // Discord may have executed the request: the response is missing or unreadable
	limited    bool          // the request exceeded a rate limit
	retryAfter time.Duration // wait before the next attempt; 0 if Discord gave none
	err        error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// permanent reports whether Discord will refuse the same request again later.
func (f *failure) permanent() bool {
	switch {
	case f.unknown || f.limited || f.status < 400 || f.status == http.StatusUnauthorized:
		return false
	case f.code == discordgo.ErrCodeOpeningDirectMessagesTooFast, f.code == discordgo.ErrCodeChannelHasHitWriteRateLimit,
		f.code == discordgo.ErrCodeTheWriteActionYouArePerformingOnTheServerHasHitTheWriteRateLimit,
		f.code == discordgo.ErrCodeThisActionCannotBePerformedDueToSlowmodeRateLimit,
		f.code == discordgo.ErrCodeSendMessagesHasBeenTemporarilyDisabled:
		return false
	}
	return true
}

// deadLetterError returns a permanent failure with its dead-letter reason. The error's text has Discord's code and
// message.
func (f *failure) deadLetterError() *deadletter.Error {
	err := fmt.Errorf("refused by Discord: %w", f.err)
	switch f.code {
	case discordgo.ErrCodeCannotSendMessagesToThisUser, discordgo.ErrCodeUnknownChannel, discordgo.ErrCodeUnknownUser,
		discordgo.ErrCodeUnknownMember, discordgo.ErrCodeUnknownGuild, discordgo.ErrCodeInvalidRecipients,
		discordgo.ErrCodeCannotExecuteActionOnThisChannelType, discordgo.ErrCodeThreadIsLocked,
		discordgo.ErrCodePerformedOperationOnArchivedThread, discordgo.ErrCodeExplicitContentCannotBeSentToTheDesiredRecipients:
		return deadletter.New(deadletter.RecipientRefused, err)
	case discordgo.ErrCodeMissingPermissions, discordgo.ErrCodeMissingAccess, discordgo.ErrCodeUnauthorized,
		discordgo.ErrCodeActionRequiredVerifiedAccount, discordgo.ErrCodeChannelVerificationLevelTooHigh,
		discordgo.ErrCodeBotsCannotUseEndpoint:
		return deadletter.New(deadletter.SenderRefused, err)
	}
	switch f.status {
	case http.StatusForbidden:
		return deadletter.New(deadletter.SenderRefused, err)
	case http.StatusNotFound:
		return deadletter.New(deadletter.RecipientRefused, err)
	}
	return deadletter.New(deadletter.PlatformRefused, err)
}
