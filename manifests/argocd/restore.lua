-- Health of a Restore: only Completed has brought everything back.
local hs = {}
local status = obj.status or {}
local phase = status.phase
if phase == "Completed" then
  hs.status = "Healthy"
  hs.message = "Completed"
elseif phase == "PartiallyFailed" then
  hs.status = "Degraded"
  hs.message = tostring(status.failed or 0) .. " objects were not restored"
  if status.messages ~= nil and status.messages[1] ~= nil then
    hs.message = hs.message .. "; first: " .. status.messages[1]
  end
elseif phase == "Failed" then
  hs.status = "Degraded"
  hs.message = status.failureReason or "Failed"
else
  hs.status = "Progressing"
  hs.message = phase or "New"
end
return hs
