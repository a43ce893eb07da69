package instance

import (
	"context"
	"time"

	"github.com/google/uuid"

	"parley.internal/shared/bus"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/topology"
)

// An announcement is a message from one instance to all instances. It is published on the egress topic, because every
// instance already receives from there. An announcement is only a hint: an instance that misses one learns the same by
// its own checks, a few minutes later.
//
// An announcement is no answer. Its attribute delivery keeps it from the function for notices, and names no entry of the
// ledger. Its destination is no platform, so an instance of an older revision ignores it.
const (
	attrAnnouncement = "announcement" // the type of the announcement

	announcementLogin = "login" // the user in userId has logged in

	noDelivery              = "none"
	announcementDestination = "gateway"
)

// announceTime bounds publishing an announcement. The browser of the user waits meanwhile.
const announceTime = 3 * time.Second

// announceLogin uses the new credential of a user at this instance, and tells all other instances to do the same.
func (i *Instance) announceLogin(ctx context.Context, user identity.UserID) {
	i.useLogin(user)
	ctx, cancel := context.WithTimeout(ctx, announceTime)
	defer cancel()
	err := i.bus.Publish(ctx, topology.Egress, bus.Outgoing{
		Event: &event.Event{
			V: event.Version, Source: "gateway", CorrelationID: uuid.NewString(), Type: "system.login", UserID: user.String(),
			Egress: &event.Egress{Destination: announcementDestination, Type: event.EgressEvent},
		},
		Attributes: map[string]string{
			bus.AttrRoute: bus.RouteBroadcast, delivery.AttrDelivery: noDelivery, attrAnnouncement: announcementLogin,
		},
	})
	if err != nil {
		i.log.WarnContext(ctx, "announcing a login failed: other instances notice it later", "user", user.String(), "error", err)
	}
}

// announced handles an announcement. An unknown announcement comes from a newer revision and is ignored.
func (i *Instance) announced(ctx context.Context, in bus.Incoming) {
	if in.Attributes[attrAnnouncement] != announcementLogin {
		return
	}
	user, err := identity.Parse(in.Event.UserID)
	if err != nil {
		i.log.WarnContext(ctx, "announcement of a login ignored", "error", err)
		return
	}
	i.log.InfoContext(ctx, "login announced", "user", user.String())
	i.useLogin(user)
}

// useLogin makes this instance use the new credential of a user. A repetition does no harm.
func (i *Instance) useLogin(user identity.UserID) {
	if i.keeper != nil {
		i.keeper.Forget(user)
	}
	if i.onLogin != nil {
		i.onLogin(user)
	}
}
