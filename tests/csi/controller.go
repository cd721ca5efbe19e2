package main

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// controller makes and removes volumes and snapshots.
type controller struct {
	csi.UnimplementedControllerServer
	storage storage
}

// defaultCapacity is for who does not say, in bytes.
const defaultCapacity = 1 << 30

func (controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, can := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
	} {
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: can}},
		})
	}
	return answer, nil
}

func (c controller) CreateVolume(_ context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	named, err := behaviourName(request.GetParameters())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	behaviour, err := c.storage.behaviour(named)
	if err != nil {
		return nil, err
	}
	if behaviour.FailCreateVolume != "" {
		return nil, status.Error(codes.Internal, behaviour.FailCreateVolume)
	}
	unlock, err := c.storage.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()

	source, fill, least, err := c.source(request.GetVolumeContentSource())
	if err != nil {
		return nil, err
	}
	capacity := request.GetCapacityRange().GetRequiredBytes()
	if capacity == 0 {
		capacity = max(least, defaultCapacity)
	}
	if capacity < least {
		return nil, status.Errorf(codes.OutOfRange, "%d bytes are less than the %d of %s", capacity, least, source)
	}
	wanted := volume{
		ID:        id("vol", request.GetName()),
		Name:      request.GetName(),
		Capacity:  capacity,
		Source:    source,
		Behaviour: named,
	}
	found, err := c.storage.volume(wanted.ID)
	if err != nil {
		return nil, err
	}
	if found == nil {
		if err := c.storage.create("volumes", "volume.json", wanted.ID, wanted, fill); err != nil {
			return nil, err
		}
	} else if found.Capacity != capacity || found.Source != source {
		return nil, status.Errorf(codes.AlreadyExists, "volume %s is there, of another size or source", wanted.Name)
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:      wanted.ID,
		CapacityBytes: capacity,
		ContentSource: request.GetVolumeContentSource(),
	}}, nil
}

// source is the id of what a volume is made from, how its data is filled, and the least capacity in bytes.
func (c controller) source(source *csi.VolumeContentSource) (string, func(string) error, int64, error) {
	switch {
	case source.GetSnapshot() != nil:
		id := source.GetSnapshot().GetSnapshotId()
		found, err := c.storage.snapshot(id)
		if err != nil {
			return "", nil, 0, err
		}
		if found == nil {
			return "", nil, 0, status.Errorf(codes.NotFound, "no snapshot %s", id)
		}
		ready, err := c.storage.ready(found)
		if err != nil {
			return "", nil, 0, err
		}
		if !ready {
			return "", nil, 0, status.Errorf(codes.Unavailable, "snapshot %s is not ready", id)
		}
		return id, copyOf(c.storage.data("snapshots", id)), found.Size, nil
	case source.GetVolume() != nil:
		id := source.GetVolume().GetVolumeId()
		found, err := c.storage.volume(id)
		if err != nil {
			return "", nil, 0, err
		}
		if found == nil {
			return "", nil, 0, status.Errorf(codes.NotFound, "no volume %s", id)
		}
		return id, copyOf(c.storage.data("volumes", id)), found.Capacity, nil
	default:
		return "", empty, 0, nil
	}
}

func (c controller) DeleteVolume(_ context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	unlock, err := c.storage.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := c.storage.remove("volumes", request.GetVolumeId()); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

func (c controller) ValidateVolumeCapabilities(_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	found, err := c.storage.volume(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %s", request.GetVolumeId())
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: request.GetVolumeCapabilities()},
	}, nil
}

func (c controller) CreateSnapshot(ctx context.Context, request *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	named, err := behaviourName(request.GetParameters())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	behaviour, err := c.storage.behaviour(named)
	if err != nil {
		return nil, err
	}
	if behaviour.FailCreateSnapshot != "" {
		return nil, status.Error(codes.Internal, behaviour.FailCreateSnapshot)
	}
	wanted := snapshot{
		ID:           id("snap", request.GetName()),
		Name:         request.GetName(),
		SourceVolume: request.GetSourceVolumeId(),
		Behaviour:    named,
		Secret:       digest(request.GetSecrets()),
	}
	made, err := c.snapshotOnce(wanted)
	if err != nil {
		return nil, err
	}
	if err := c.storage.wait(ctx, named, made.Created); err != nil {
		return nil, err
	}
	answer, err := c.storage.describe(made)
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: answer}, nil
}

// snapshotOnce makes a snapshot, or gives the one of that name that is there.
func (c controller) snapshotOnce(wanted snapshot) (*snapshot, error) {
	unlock, err := c.storage.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	found, err := c.storage.snapshot(wanted.ID)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return c.storage.take(wanted)
	}
	if found.SourceVolume != wanted.SourceVolume {
		return nil, status.Errorf(codes.AlreadyExists, "snapshot %s is there, of another volume", wanted.Name)
	}
	return found, nil
}

// take makes a snapshot; the lock is held.
func (s storage) take(wanted snapshot) (*snapshot, error) {
	source, err := s.volume(wanted.SourceVolume)
	if err != nil {
		return nil, err
	}
	if source == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %s", wanted.SourceVolume)
	}
	wanted.Size = source.Capacity
	wanted.Created = time.Now()
	if err := s.create("snapshots", "snapshot.json", wanted.ID, wanted, copyOf(s.data("volumes", source.ID))); err != nil {
		return nil, err
	}
	return &wanted, nil
}

// wait returns once the behaviour of that name lets a snapshot of that age be answered, or with an error when the
// caller has gone.
func (s storage) wait(ctx context.Context, named string, created time.Time) error {
	// A test may change the behaviour meanwhile.
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		behaviour, err := s.behaviour(named)
		if err != nil {
			return err
		}
		if time.Since(created) >= time.Duration(behaviour.AnswerCreateSnapshotAfter)*time.Millisecond {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

func (s storage) ready(of *snapshot) (bool, error) {
	behaviour, err := s.behaviour(of.Behaviour)
	if err != nil {
		return false, err
	}
	after := time.Duration(behaviour.SnapshotReadyAfter) * time.Millisecond
	return !behaviour.SnapshotsPending && time.Since(of.Created) >= after, nil
}

func (s storage) describe(of *snapshot) (*csi.Snapshot, error) {
	ready, err := s.ready(of)
	if err != nil {
		return nil, err
	}
	return &csi.Snapshot{
		SnapshotId:      of.ID,
		SourceVolumeId:  of.SourceVolume,
		SizeBytes:       of.Size,
		CreationTime:    timestamppb.New(of.Created),
		ReadyToUse:      ready,
		GroupSnapshotId: of.Group,
	}, nil
}

func (c controller) DeleteSnapshot(_ context.Context, request *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	unlock, err := c.storage.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	found, err := c.storage.snapshot(request.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	if found == nil {
		return &csi.DeleteSnapshotResponse{}, nil
	}
	behaviour, err := c.storage.behaviour(found.Behaviour)
	if err != nil {
		return nil, err
	}
	switch {
	case behaviour.FailDeleteSnapshot != "":
		return nil, status.Error(codes.Internal, behaviour.FailDeleteSnapshot)
	case found.Secret != digest(request.GetSecrets()):
		return nil, status.Errorf(codes.Unauthenticated, "snapshot %s was made with other secrets", found.ID)
	case found.Group != "":
		// The code that the specification has for it.
		return nil, status.Errorf(codes.InvalidArgument, "snapshot %s is part of group snapshot %s", found.ID, found.Group)
	}
	if err := c.storage.remove("snapshots", found.ID); err != nil {
		return nil, err
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

func (c controller) ListSnapshots(_ context.Context, request *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	all, err := c.storage.snapshots()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(one *snapshot) bool {
		return request.GetSnapshotId() != "" && one.ID != request.GetSnapshotId() ||
			request.GetSourceVolumeId() != "" && one.SourceVolume != request.GetSourceVolumeId()
	})
	first := 0
	if token := request.GetStartingToken(); token != "" {
		first, err = strconv.Atoi(token)
		if err != nil || first < 0 || first > len(all) {
			return nil, status.Errorf(codes.Aborted, "%q is no starting token", token)
		}
	}
	answer := &csi.ListSnapshotsResponse{}
	last := len(all)
	if most := int(request.GetMaxEntries()); most > 0 && first+most < last {
		last = first + most
		answer.NextToken = strconv.Itoa(last)
	}
	for _, one := range all[first:last] {
		described, err := c.storage.describe(one)
		if err != nil {
			return nil, err
		}
		answer.Entries = append(answer.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: described})
	}
	return answer, nil
}
