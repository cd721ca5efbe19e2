-- Health of a BackupStorageLocation: as its last sync saw it. One that was never synced is not waited for: the first sync
-- comes within the hour.
local hs = {}
local status = obj.status or {}
if status.unreachable ~= nil and status.unreachable ~= "" then
  hs.status = "Degraded"
  hs.message = status.unreachable
elseif status.lastSyncTime ~= nil then
  hs.status = "Healthy"
  hs.message = "last synced " .. status.lastSyncTime
else
  hs.status = "Healthy"
  hs.message = "not synced yet"
end
return hs
