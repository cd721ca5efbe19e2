-- Health of a Backup: only Completed is a backup with nothing missing.
local hs = {}
local status = obj.status or {}
local phase = status.phase
if phase == "Completed" then
  hs.status = "Healthy"
  hs.message = "Completed"
elseif phase == "PartiallyFailed" then
  hs.status = "Degraded"
  hs.message = "something is missing: " .. tostring(status.errors or 0) .. " errors"
  if status.messages ~= nil and status.messages[1] ~= nil then
    hs.message = hs.message .. "; first: " .. status.messages[1]
  end
elseif phase == "Failed" then
  hs.status = "Degraded"
  hs.message = status.failureReason or "Failed"
elseif phase == "Deleting" then
  hs.status = "Progressing"
  hs.message = "being deleted"
else
  hs.status = "Progressing"
  hs.message = phase or "New"
end
return hs
