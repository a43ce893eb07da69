package firestore_test

import (
	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/genproto/googleapis/type/latlng"
)

const writerDir = "X"

func writeUntilKilled(string) {}

func geo(lat, lng float64) *pb.Value {
	return &pb.Value{ValueType: &pb.Value_GeoPointValue{GeoPointValue: &latlng.LatLng{Latitude: lat, Longitude: lng}}}
}

func vector(components ...float64) *pb.Value {
	var v []*pb.Value
	for _, c := range components {
		v = append(v, double(c))
	}
	return object(fields{"__type__": str("__vector__"), "value": array(v...)})
}
