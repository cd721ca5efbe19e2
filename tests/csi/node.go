package main

import (
	"context"
	"log"
	"os"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// nodeServer mounts volumes where the kubelet wants them.
type nodeServer struct {
	csi.UnimplementedNodeServer
	storage storage
	node    string
}

func (n nodeServer) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.node}, nil
}

func (nodeServer) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

func (n nodeServer) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	found, err := n.storage.volume(request.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, status.Errorf(codes.NotFound, "no volume %s", request.GetVolumeId())
	}
	target := request.GetTargetPath()
	if err := os.MkdirAll(target, 0o750); err != nil {
		return nil, err
	}
	mounted, err := isMounted(target)
	if err != nil {
		return nil, err
	}
	if !mounted {
		if err := command("mount", "--bind", n.storage.data("volumes", found.ID), target); err != nil {
			return nil, err
		}
	}
	if request.GetReadonly() {
		if err := command("mount", "-o", "remount,bind,ro", target); err != nil {
			return nil, err
		}
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (nodeServer) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	target := request.GetTargetPath()
	mounted, err := isMounted(target)
	if err != nil {
		return nil, err
	}
	if mounted {
		if err := command("umount", target); err != nil {
			return nil, err
		}
	}
	// Not with what is in it: that would be the volume, were it still mounted.
	if err := os.Remove(target); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// isMounted reads this process's mounts. Paths of the kubelet have no characters that would be escaped there.
func isMounted(path string) (bool, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == path {
			return true, nil
		}
	}
	return false, nil
}

// registrar tells the kubelet where the driver listens.
type registrar struct {
	registration.UnimplementedRegistrationServer
	name, socket string
}

func (r registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              r.name,
		Endpoint:          r.socket,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (registrar) NotifyRegistrationStatus(_ context.Context, request *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !request.GetPluginRegistered() {
		// It asks again when the socket appears anew, which is when a driver is started.
		log.Printf("the kubelet refuses this driver: %s", request.GetError())
	}
	return &registration.RegistrationStatusResponse{}, nil
}
